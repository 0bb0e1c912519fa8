"""``embedding-pipeline costs``: what was spent, on what, and what was not spent.

Belongs here: joining the ledger's sums with the summaries' savings for printing. Does
not belong here: any booking.
"""

import asyncio
import csv
import io
from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING, Final

import click

from embedding_pipeline.cli.books import ask
from embedding_pipeline.cli.days import DAY, as_text
from embedding_pipeline.cli.output import Column, Row, count, emit, money

if TYPE_CHECKING:
    from embedding_pipeline.ledger.queries import LedgerSum
    from embedding_pipeline.settings.tree import Settings

GROUPS: Final = ("date", "spent", "project", "user", "model", "space", "source")
FIGURES: Final = (
    "chunks",
    "requests",
    "input_tokens",
    "cost_nano_usd",
    "unknown_nano_usd",
    "saved_nano_usd",
    "unpriced_tokens",
)

BOOKED: Final = (
    "requests",
    "input_tokens",
    "cost_nano_usd",
    "unknown_nano_usd",
    "unpriced_tokens",
)
"""What is known of the day the money was spent; chunks and savings belong to partitions."""

_COLUMNS: Final = (
    count("chunks", "chunks"),
    count("requests", "requests"),
    count("tokens", "input_tokens"),
    money("cost", "cost_nano_usd"),
    money("unknown", "unknown_nano_usd"),
    money("saved", "saved_nano_usd"),
    count("unpriced", "unpriced_tokens"),
)


@click.command()
@click.option("--start", type=DAY, help="First day.")
@click.option("--end", type=DAY, help="Last day.")
@click.option(
    "--by",
    type=click.Choice(GROUPS),
    multiple=True,
    default=("date", "project"),
    show_default=True,
    help="Group by this; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; money in nano-USD.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV; money in nano-USD.")
@click.option("--report", is_flag=True, help="Write the HTML report and say where it is.")
def costs(
    start: date | None,
    end: date | None,
    by: tuple[str, ...],
    as_json: bool,
    as_csv: bool,
    report: bool,
) -> None:
    """What was spent and saved, from the ledger and the cost summaries.

    "date" is the partition the money was for, "spent" the day it was spent on. Tokens and
    money are the ledger's: every request counts, failed and interrupted ones included.
    "unknown" is the part whose answer never arrived whole. Online calls belong to no
    partition and are shown when neither --start nor --end is given. With --by spent, these
    are days of spending. "unpriced" are tokens whose price was not known: no cost has them.
    """
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    if report:
        click.echo(_report(settings))
        return
    rows = summed(settings, by, as_text(start), as_text(end))
    shown = [column for column in _COLUMNS if "spent" not in by or column.key in BOOKED]
    if as_csv:
        click.echo(_csv(rows, [*by, *(column.key for column in shown)]), nl=False)
        return
    if not any(row["unpriced_tokens"] for row in rows):
        shown.pop()
    titles = [Column(name, name) for name in by]
    emit(rows, (*titles, *shown), as_json=as_json, empty="Nothing was spent yet.")


def _report(settings: "Settings") -> str:
    """Write the report; where it is, and what it advises."""
    from embedding_pipeline.assembly.history import cost_history, write_report

    found = asyncio.run(cost_history(settings))
    place = write_report(settings, found)
    return "\n".join([*(f"{one.title}. {one.text}" for one in found.advice), place])


def _csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def summed(
    settings: "Settings", by: tuple[str, ...], start: str | None = None, end: str | None = None
) -> list[Row]:
    """Figures of the days ``start`` to ``end`` (both included), one row a group."""
    import pandas as pd

    if "spent" in by:
        figures, day, source = list(BOOKED), "spent", _by_day_of_spending(settings)
    else:
        figures, day, source = list(FIGURES), "date", _rows(settings)
    wanted = [row for row in source if _within(row[day], start, end)]
    if not wanted:
        return []
    frame = pd.DataFrame(wanted, columns=[*GROUPS, *figures]).fillna(dict.fromkeys(figures, 0))
    groups = frame.groupby(list(by), sort=True)[figures].sum().astype("int64").reset_index()
    return [{str(name): value for name, value in row.items()} for row in groups.to_dict("records")]


def _within(day: str, start: str | None, end: str | None) -> bool:
    return (start is None or day >= start) and (end is None or "" < day <= end)


def _rows(settings: "Settings") -> Iterator[Row]:
    yield from _booked(settings)
    yield from _explained(settings)


def _booked(settings: "Settings") -> Iterator[Row]:
    """Money and requests, from the ledger."""
    from embedding_pipeline.ledger.queries import sums

    yield from map(_row, ask(settings, sums) or [])


def _by_day_of_spending(settings: "Settings") -> Iterator[Row]:
    """The same, each with its day."""
    from embedding_pipeline.ledger.spending import by_day

    for spent in ask(settings, lambda connection: list(by_day(connection, settings.zone))) or []:
        yield {**_row(spent.entry), "spent": spent.day.isoformat()}


def _row(entry: "LedgerSum") -> Row:
    from embedding_pipeline.pipeline.history.gathering import model_of

    return {
        "date": entry.account.partition,
        "project": entry.account.project,
        "user": entry.account.user,
        "model": model_of(entry.space),
        "space": entry.space,
        "source": str(entry.kind),
        "requests": entry.requests,
        "input_tokens": entry.tokens,
        "cost_nano_usd": entry.cost_nano_usd,
        "unknown_nano_usd": entry.unknown_nano_usd,
        "unpriced_tokens": entry.unpriced_tokens,
    }


def _explained(settings: "Settings") -> Iterator[Row]:
    """Chunks and savings, from the summaries of finished days."""
    from embedding_pipeline.assembly.parts import build_datasets
    from embedding_pipeline.pipeline.history.gathering import model_of

    datasets = build_datasets(settings)
    names = ("chunks", "saved_nano_usd", "project", "user", "space", "source")
    for day in datasets.days("cost_summary"):
        for batch in datasets.cost_summary(day).iter_batches(names):
            for row in batch.to_pylist():
                yield {"date": day, "model": model_of(row["space"]), **row}
