"""``embedding-pipeline plan``: the price of some days, before anything is spent.

Belongs here: options, and how a plan reads. Does not belong here: counting.
"""

import asyncio
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import click

from embedding_pipeline.cli.days import DAY, as_text
from embedding_pipeline.cli.output import Column, Row, count, emit, json_lines
from embedding_pipeline.pipeline.words import usd_or_unknown

if TYPE_CHECKING:
    from embedding_pipeline.pipeline.plan import SpendingPlan

NOT_ALLOWED: Final = 7
GROUPS: Final = ("partition", "project", "user")

_COLUMNS: Final = (
    count("chunks", "chunks"),
    count("duplicates", "duplicates"),
    count("refused", "refused"),
    count("cached", "cached"),
    count("repeated", "repeated"),
    count("to embed", "to_embed"),
    count("tokens", "input_tokens"),
    Column("cost", "cost_nano_usd", usd_or_unknown, right=True),
    Column("Batch API", "batch_cost_nano_usd", usd_or_unknown, right=True),
)


@click.command()
@click.option("--start", type=DAY, help="First day.  [default: the first partition]")
@click.option("--end", type=DAY, help="Last day, included.  [default: yesterday]")
@click.option("--model", help="Plan for this model instead of the settings' one.")
@click.option(
    "--by",
    type=click.Choice(GROUPS),
    multiple=True,
    default=("partition", "project"),
    show_default=True,
    help="Group by this; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; money in nano-USD.")
def plan(
    start: date | None, end: date | None, model: str | None, by: tuple[str, ...], as_json: bool
) -> int:
    """Say what a range of days would cost, before anything is spent.

    Exact tokens after deduplication, with what the cache holds left out and a text that
    several days hold counted once. Days that were not made yet are read from the source.
    Nothing is written, and no request is made. Exits with 7 when a budget is in the way.
    """
    from embedding_pipeline.assembly.planning import plan_spending
    from embedding_pipeline.defs.days import days_between
    from embedding_pipeline.pipeline.plan_words import summary
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    days = days_between(settings, as_text(start), as_text(end))
    made = asyncio.run(plan_spending(settings, days, model=model))
    rows = _rows(made, by)
    if as_json:
        click.echo(json_lines({**summary(made), "rows": rows}))
    else:
        _tell(made, rows, by)
    return 0 if made.allowed else NOT_ALLOWED


def _rows(plan: "SpendingPlan", by: tuple[str, ...]) -> list[Row]:
    from embedding_pipeline.pipeline.plan_words import priced

    groups: Any = by
    return [
        {**dict(zip(by, key, strict=True)), **priced(plan, figures)}
        for key, figures in plan.by(*groups).items()
    ]


def _tell(plan: "SpendingPlan", rows: list[Row], by: tuple[str, ...]) -> None:
    from embedding_pipeline.pipeline.plan_words import priced, sentences

    titles = [Column(name, name) for name in by]
    total = {**dict.fromkeys(by, ""), **priced(plan, plan.total), by[0]: "total"}
    emit([*rows, total], (*titles, *_COLUMNS), as_json=False, empty="")
    click.echo("")
    for line in sentences(plan):
        click.echo(line)
