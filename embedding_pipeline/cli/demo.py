"""``embedding-pipeline demo``: the whole graph, with nothing but this machine.

Belongs here: choosing the days, and telling what happened.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from embedding_pipeline.cli import summary
from embedding_pipeline.cli.backfill import refuse_the_impossible, status
from embedding_pipeline.cli.output import emit
from embedding_pipeline.cli.progress import Meter, showing
from embedding_pipeline.cli.search import find, shorten
from embedding_pipeline.errors import SettingsError
from embedding_pipeline.pipeline.words import usd

if TYPE_CHECKING:
    from embedding_pipeline.defs.launch import BackfillOutcome
    from embedding_pipeline.settings.tree import Settings

QUESTION: Final = "parse a date from a string"
DAYS: Final = 7


@click.command()
def demo() -> int:
    """Run the whole graph on the documentation inside this Python.

    Needs no key, no server and no network. Run it again, and nothing is embedded twice.
    """
    from embedding_pipeline.defs.days import available_days
    from embedding_pipeline.defs.launch import backfill
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    if settings.source.kind != "demo":
        raise SettingsError(
            f"the demo needs source.kind: demo, but the settings say {settings.source.kind}; "
            "use embedding-pipeline backfill for your own chunks"
        )
    refuse_the_impossible(settings)
    days = available_days(settings)[:DAYS]
    click.echo(
        f"Embedding the documentation inside this Python with {settings.embedding.model}, "
        f"{days[0]} to {days[-1]}."
    )
    with showing("Embedding") as meter:
        outcome = backfill(settings, days[0], days[-1], partitions_per_run=DAYS, on_progress=meter)
    if code := status(outcome):
        return code
    _tell(settings, outcome, meter)
    _search(settings)
    _what_next()
    return 0


def _tell(settings: "Settings", outcome: "BackfillOutcome", meter: Meter) -> None:
    rows = summary.with_total(summary.day_rows(settings, outcome.partitions))
    emit(rows, summary.DAY_COLUMNS, as_json=False, empty="")
    now = summary.spent_by_runs(settings, [run.run_id for run in outcome.runs])
    seconds = sum(run.seconds for run in outcome.runs)
    if not now.requests:
        click.echo(
            f"\nNo embedding call was made: every vector was there already. {seconds:.0f} s."
        )
    else:
        click.echo(
            f"\n{meter.embedded:,} texts, {now.input_tokens:,} tokens, embedded in "
            f"{now.requests:,} requests. {seconds:.0f} s."
        )
    ever = summary.spent_on_days(settings, outcome.partitions)
    click.echo(
        f"Cost: {usd(ever.cost_nano_usd)}. With {summary.REFERENCE_MODEL} it would have been "
        f"{usd(summary.reference_cost(ever.input_tokens))}."
    )


def _search(settings: "Settings") -> None:
    click.echo(f'\nWhat is nearest to "{QUESTION}":')
    for hit in find(settings, QUESTION, 3):
        click.echo(f"  {hit.score:.2f}  {hit.chunk_id}")
        click.echo(f"        {shorten(hit.text)}")


def _what_next() -> None:
    command = sys.argv[0] if sys.argv[0].endswith("embedding-pipeline") else "embedding-pipeline"
    click.echo(f'\nAsk yourself:  {command} search "…"')
    if Path("Makefile").is_file():
        click.echo("See the graph: make ui, then open http://127.0.0.1:3000")
    else:
        click.echo(f"See the graph: {command} init")
