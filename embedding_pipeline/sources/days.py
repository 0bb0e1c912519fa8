"""Which day a row belongs to when the path does not say: its date column, and else its company.

Belongs here: choosing the rows of one day out of a file that holds several, pure.
Does not belong here: reading, or judging anything but the date.

A row whose date cannot be read must be reported by exactly one day. It belongs to
the day of the nearest dated row before it in its file, where it most likely stood;
before the first dated row, to that row's day; in a file without any, to the file's
own day. Reporting it on every day would count it as often as there are days, and
reporting it on the first day would never show what goes wrong tomorrow.
"""

from collections.abc import Iterable, Iterator
from datetime import date
from typing import Final

from embedding_pipeline.records import Rejected
from embedding_pipeline.sources.rows import Record, day_of

MAX_WAITING: Final = 1000
"""Undated rows at the start of a file that wait for the first dated one."""


def rows_of_day(
    rows: Iterable[Record | Rejected], day: date, *, column: str, file_day: date
) -> Iterator[Record | Rejected]:
    """What belongs to ``day`` out of one file's rows, in order.

    Args:
        rows: everything in the file; a ``Rejected`` has no date of its own.
        day: the day asked for.
        column: the date column.
        file_day: the file's own day.
    """
    current: date | None = None
    waiting: list[Rejected] = []
    for row in rows:
        own = day_of(row.values.get(column)) if isinstance(row, Record) else None
        current = own or current
        if current is None:
            waiting.append(_undated(row))
            current = file_day if len(waiting) == MAX_WAITING else None
            continue
        if current == day:
            yield from waiting
            yield row if own else _undated(row)
        waiting.clear()
    if (current or file_day) == day:
        yield from waiting


def _undated(row: Record | Rejected) -> Rejected:
    return row if isinstance(row, Rejected) else row.rejected("bad_date")
