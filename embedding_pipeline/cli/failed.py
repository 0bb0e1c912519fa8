"""``embedding-pipeline failed``: chunks in quarantine, and chunks left for later.

Belongs here: listing them and asking for another try.
"""

import asyncio
from datetime import date
from typing import TYPE_CHECKING, Any

import click

from embedding_pipeline.cli.books import ask, change
from embedding_pipeline.cli.budget import DEFERRED, waiting_row
from embedding_pipeline.cli.days import DAY, as_text
from embedding_pipeline.cli.output import Column, count, emit

if TYPE_CHECKING:
    from embedding_pipeline.ledger.quarantine import Held

_COLUMNS = (
    Column("date", "date"),
    Column("chunk", "chunk_id"),
    Column("project", "project"),
    Column("reason", "reason"),
    Column("code", "code"),
    count("attempts", "attempts"),
    Column("last", "last_attempt"),
)


@click.group()
def failed(**_: Any) -> None:
    """Chunks without a vector: list them, or try again those that a provider refuses."""


@failed.command("list")
@click.option("--partition", type=DAY, help="Only this day.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_failed(partition: date | None, as_json: bool) -> None:
    """List the chunks in quarantine, with the reason of each."""
    from embedding_pipeline.ledger.quarantine import listing
    from embedding_pipeline.settings.loading import load_settings

    held = ask(load_settings(), lambda c: listing(c, as_text(partition))) or []
    emit([_row(chunk) for chunk in held], _COLUMNS, as_json=as_json, empty="No chunk has failed.")


@failed.command("deferred")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; money in nano-USD.")
def list_deferred(as_json: bool) -> None:
    """List what was left for later, by day and reason: budget, outage or batch_api.

    recovery_sensor runs these days again, once the budget has room and the provider answers;
    batch_api_sensor, once their batches are in.
    """
    from embedding_pipeline.assembly.watching import deferrals
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    price = settings.model_spec.nano_usd_per_token or 0
    rows = [waiting_row(one, price) for one in asyncio.run(deferrals(settings))]
    emit(rows, DEFERRED, as_json=as_json, empty="No chunk is deferred.")


@failed.command()
@click.argument("chunk_ids", nargs=-1, metavar="[CHUNK]...")
@click.option("--partition", type=DAY, help="Every failed chunk of this day.")
@click.option("--all", "everything", is_flag=True, help="Every failed chunk.")
def redrive(chunk_ids: tuple[str, ...], partition: date | None, everything: bool) -> None:
    """Let the next run try failed chunks again, and say which days to run."""
    from embedding_pipeline.ledger import quarantine
    from embedding_pipeline.settings.loading import load_settings

    if not (chunk_ids or partition or everything):
        raise click.UsageError("name chunks, a --partition, or --all")
    days = change(
        load_settings(),
        lambda c: quarantine.redrive(c, chunk_ids=chunk_ids, partition=as_text(partition)),
    )
    if not days:
        click.echo("No failed chunk is meant by that; see: embedding-pipeline failed list")
        return
    click.echo(f"They are tried again when these days run: {', '.join(days)}. To run them:")
    click.echo(
        f"  embedding-pipeline backfill --start {days[0]} --end {days[-1]} "
        "--assets embeddings,cost_summary --wait"
    )


def _row(chunk: "Held") -> dict[str, Any]:
    from embedding_pipeline.clock import utc

    return {
        "date": chunk.account.partition,
        "chunk_id": chunk.chunk_id,
        "project": chunk.account.project,
        "space": chunk.space,
        "reason": chunk.reason,
        "code": chunk.code,
        "attempts": chunk.attempts,
        "last_attempt": utc(chunk.last_ms / 1000).isoformat(timespec="seconds"),
    }
