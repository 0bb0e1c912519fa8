"""``embedding-pipeline costs``: what was spent, on what, and what was not spent.

Belongs here: joining the ledger's sums with the summaries' savings for printing. Does
not belong here: any booking.
"""

from collections.abc import Iterator
from datetime import date
from typing import TYPE_CHECKING, Final

import click

from embedding_pipeline.cli.books import ask
from embedding_pipeline.cli.days import DAY, as_text
from embedding_pipeline.cli.output import Column, Row, count, emit, money

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings

GROUPS: Final = ("date", "project", "user", "space", "source")
FIGURES: Final = (
    "chunks",
    "requests",
    "input_tokens",
    "cost_nano_usd",
    "unknown_nano_usd",
    "saved_nano_usd",
)

_COLUMNS: Final = (
    count("chunks", "chunks"),
    count("requests", "requests"),
    count("tokens", "input_tokens"),
    money("cost", "cost_nano_usd"),
    money("unknown", "unknown_nano_usd"),
    money("saved", "saved_nano_usd"),
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
def costs(start: date | None, end: date | None, by: tuple[str, ...], as_json: bool) -> None:
    """What was spent and saved, from the ledger and the cost summaries.

    Tokens and money are the ledger's: every request counts, failed and interrupted ones
    included. "unknown" is the part that was in flight when a process died. Online calls
    belong to no day and are shown when neither --start nor --end is given.
    """
    from embedding_pipeline.settings.loading import load_settings

    rows = summed(load_settings(), by, as_text(start), as_text(end))
    titles = [Column(name, name) for name in by]
    emit(rows, (*titles, *_COLUMNS), as_json=as_json, empty="Nothing was spent yet.")


def summed(
    settings: "Settings", by: tuple[str, ...], start: str | None = None, end: str | None = None
) -> list[Row]:
    """Figures of the days ``start`` to ``end`` (both included), one row a group."""
    import pandas as pd

    wanted = [row for row in _rows(settings) if _within(row["date"], start, end)]
    if not wanted:
        return []
    frame = pd.DataFrame(wanted, columns=[*GROUPS, *FIGURES]).fillna(dict.fromkeys(FIGURES, 0))
    groups = frame.groupby(list(by), sort=True)[list(FIGURES)].sum().astype("int64").reset_index()
    return [{str(name): value for name, value in row.items()} for row in groups.to_dict("records")]


def _within(day: str, start: str | None, end: str | None) -> bool:
    return (start is None or day >= start) and (end is None or "" < day <= end)


def _rows(settings: "Settings") -> Iterator[Row]:
    yield from _booked(settings)
    yield from _explained(settings)


def _booked(settings: "Settings") -> Iterator[Row]:
    """Money and requests, from the ledger."""
    from embedding_pipeline.ledger.queries import sums

    for entry in ask(settings, sums) or []:
        yield {
            "date": entry.account.partition,
            "project": entry.account.project,
            "user": entry.account.user,
            "space": entry.space,
            "source": str(entry.kind),
            "requests": entry.requests,
            "input_tokens": entry.tokens,
            "cost_nano_usd": entry.cost_nano_usd,
            "unknown_nano_usd": entry.unknown_nano_usd,
        }


def _explained(settings: "Settings") -> Iterator[Row]:
    """Chunks and savings, from the summaries of finished days."""
    from embedding_pipeline.assembly.parts import build_datasets

    datasets = build_datasets(settings)
    for path in sorted((datasets.root / "cost_summary").glob("*.parquet")):
        for batch in datasets.cost_summary(path.stem).iter_batches():
            for row in batch.to_pylist():
                kept = {name: row[name] for name in ("chunks", "saved_nano_usd", *GROUPS[1:])}
                yield {"date": path.stem, **kept}
