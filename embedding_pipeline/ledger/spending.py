"""Spending by calendar day: the ledger's entries by the local day they were booked.

Belongs here: sums between the borders of days. Does not belong here: the borders
(``periods``), or what the figures mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, tzinfo

from sqlalchemy import Connection, func, select

from embedding_pipeline.ledger.periods import window_of
from embedding_pipeline.ledger.queries import LedgerSum, sums
from embedding_pipeline.state.schema import ledger


@dataclass(frozen=True)
class SpentOn:
    """What was booked on one local day, by partition, project, user, space and kind."""

    day: date
    entry: LedgerSum


def local_day(at_ms: int, zone: tzinfo) -> date:
    """The local day of an instant."""
    return datetime.fromtimestamp(at_ms / 1000, zone).date()


def by_day(connection: Connection, zone: tzinfo) -> Iterator[SpentOn]:
    """Every entry, summed by local day, oldest first. One query a day that has entries."""
    start: int | None = connection.scalar(select(func.min(ledger.c.at)))
    while start is not None:
        day = window_of("day", start, zone)
        for entry in sums(connection, start_ms=day.start_ms, end_ms=day.end_ms):
            yield SpentOn(local_day(start, zone), entry)
        later = select(func.min(ledger.c.at)).where(ledger.c.at >= day.end_ms)
        start = connection.scalar(later)
