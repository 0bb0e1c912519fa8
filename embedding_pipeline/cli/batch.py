"""``embedding-pipeline batch``: work for the Batch API, looked after by hand.

Belongs here: options and what is told. Does not belong here: moving submissions on
(``assembly.batch_keeping``), or sending (``assembly.warming``).
"""

import asyncio
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import click

from embedding_pipeline.cli.days import DAY, as_text
from embedding_pipeline.cli.endings import FAILED
from embedding_pipeline.cli.output import Column, Row, count, emit, json_lines

if TYPE_CHECKING:
    from embedding_pipeline.assembly.batch_keeping import Kept
    from embedding_pipeline.batch_api.records import Submission
    from embedding_pipeline.settings.tree import Settings

ASSETS: Final = ("embeddings", "cost_summary")


def _span(days: Sequence[str]) -> str:
    if len(days) < 2:
        return "".join(days)
    return f"{days[0]} to {days[-1]} ({len(days)})"


_COLUMNS: Final = (
    Column("id", "id", lambda value: str(value)[:12]),
    Column("state", "state"),
    Column("provider says", "status"),
    count("texts", "inputs"),
    count("tokens", "tokens"),
    count("billed", "billed_tokens"),
    Column("opened", "opened"),
    Column("days", "days", _span),
    Column("note", "note"),
)


@click.group()
def batch(**_: Any) -> None:
    """The Batch API: half price, within a day. batch_api_sensor does all of this by itself."""


@batch.command("list")
@click.option("--all", "finished", is_flag=True, help="Those that are done as well.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_batches(*, finished: bool, as_json: bool) -> None:
    """List what was sent to the Batch API, and how far it is."""
    from embedding_pipeline.assembly.batch_keeping import submissions
    from embedding_pipeline.settings.loading import load_settings

    found = asyncio.run(submissions(load_settings(), finished=finished))
    rows = [_row(one) for one in found]
    emit(rows, _COLUMNS, as_json=as_json, empty="No batch is under way.")


@batch.command()
@click.option("--start", type=DAY, help="First day.  [default: the first partition]")
@click.option("--end", type=DAY, help="Last day, included.  [default: yesterday]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def submit(start: date | None, end: date | None, as_json: bool) -> None:
    """Send what days lack to the Batch API, whatever batch_api says.

    Days that were not made yet are read from the source; no dataset is written. What is there,
    or on its way already, is not sent again. Batches begin as the provider's queue has room:
    batch_api_sensor sees to that, or embedding-pipeline batch collect --wait.
    """
    from embedding_pipeline.assembly.warming import submit_days
    from embedding_pipeline.defs.days import days_between
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    days = days_between(settings, as_text(start), as_text(end))
    sent = asyncio.run(submit_days(settings, days))
    done = sent.submitted
    assert done is not None
    if as_json:
        figures = {"files": len(done.ids), "texts": done.inputs, "tokens": done.weight}
        others = {"elsewhere": done.elsewhere, "no_budget": done.unpaid}
        click.echo(json_lines({**figures, **others, "ids": done.ids}))
    else:
        click.echo(f"{sent}.")


@batch.command()
@click.option("--wait", is_flag=True, help="Go on until no batch is under way.")
@click.option("--run", "make_days", is_flag=True, help="Make the days that waited for them.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    help="With --wait: seconds between two looks.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def collect(*, wait: bool, make_days: bool, every: float, as_json: bool) -> int:
    """Ask after the batches: store and book what came, begin those there is room for.

    What is collected is never collected twice, however often this runs, and beside the sensor.
    """
    from embedding_pipeline.assembly.batch_keeping import find_ready, keep
    from embedding_pipeline.clock import SystemClock
    from embedding_pipeline.settings.loading import load_settings

    settings, status, tried = load_settings(), 0, set[str]()
    while True:
        kept, ready = asyncio.run(keep(settings)), asyncio.run(find_ready(settings))
        if make_days and ready and ready.key not in tried:
            tried.add(ready.key)
            status = worse(status, _make(settings, ready.days))
        elif wait and len(kept.strange) < len({one.queue for one in kept.left}):
            asyncio.run(SystemClock().sleep(every))
        else:
            break
    waiting = list(ready.days)
    if as_json:
        rows = [_row(one) for one in kept.left]
        click.echo(json_lines({"left": rows, "ready": waiting, "strange": list(kept.strange)}))
    else:
        _tell(kept, waiting)
    return status


@batch.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All that are under way.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def cancel(ids: tuple[str, ...], *, everything: bool, as_json: bool) -> None:
    """Ask for the end of batches, by the beginnings of their ids.

    What the provider has done by then is delivered and billed; collect it. The rest is sent
    one request at a time by the next run of its days.
    """
    from embedding_pipeline.assembly import batch_keeping
    from embedding_pipeline.settings.loading import load_settings

    if bool(ids) == everything:
        raise click.UsageError("name batches by their ids, or all of them by --all")
    found = asyncio.run(batch_keeping.cancel(load_settings(), ids))
    emit([_row(one) for one in found], _COLUMNS, as_json=as_json, empty="No batch is under way.")


@batch.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def forget(ids: tuple[str, ...], *, yes: bool, as_json: bool) -> None:
    """Take batches off the books that cannot be asked after any more, by their ids' beginnings.

    For batches of an account or model that the settings no longer lead to, and never will: where
    they can, cancel and collect them instead. The provider is not told. What it may bill is booked
    as unknown, and the texts are sent again by the next run of their days.
    """
    from embedding_pipeline.assembly.batch_keeping import forget_submissions
    from embedding_pipeline.cli.asking import go_on
    from embedding_pipeline.clock import SystemClock
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    if not yes:
        go_on("Their results will never be collected, and the texts are paid again. Go on?")
    found = asyncio.run(forget_submissions(settings, ids, SystemClock()))
    rows = [{**_row(one.submission), "freed": one.freed, "unknown": one.unknown} for one in found]
    columns = (*_COLUMNS, count("free again", "freed"), count("booked unknown", "unknown"))
    emit(rows, columns, as_json=as_json, empty="Another process works on them; try again later.")


def worse(one: int, other: int) -> int:
    """The exit code of two: a failure tells more than a budget that is used up."""
    return FAILED if FAILED in (one, other) else max(one, other)


def _make(settings: "Settings", days: Sequence[str]) -> int:
    """Make days in runs of neighbours; the exit code."""
    from embedding_pipeline.cli.backfill import status
    from embedding_pipeline.defs import launch
    from embedding_pipeline.defs.days import available_days
    from embedding_pipeline.defs.outcomes import contiguous

    worst, available = 0, available_days(settings)
    for group in contiguous(days, available, len(days)):
        outcome = launch.backfill(settings, group[0], group[-1], assets=ASSETS)
        worst = worse(worst, status(outcome))
        click.echo(f"{_span(group)}: {len(outcome.finished)} of {len(group)} made", err=True)
    return worst


def _tell(kept: "Kept", ready: Sequence[str]) -> None:
    empty = "No batch is under way."
    emit([_row(one) for one in kept.left], _COLUMNS, as_json=False, empty=empty)
    for queue in kept.strange:
        click.echo(f"The settings lead to another account or model than {queue}.", err=True)
    if ready:
        click.echo(
            f"{len(ready)} days can be made: embedding-pipeline batch collect --run, or "
            f"embedding-pipeline backfill --start {ready[0]} --end {ready[-1]} "
            "--assets embeddings,cost_summary --wait"
        )


def _row(one: "Submission") -> Row:
    from embedding_pipeline.clock import utc

    return {
        "id": one.id,
        "queue": one.queue,
        "state": one.state.value,
        "status": one.status,
        "batch_id": one.batch_id,
        "inputs": one.inputs,
        "tokens": one.weight,
        "billed_tokens": one.booked_tokens,
        "opened": utc(one.opened_ms / 1000).isoformat(timespec="seconds"),
        "run_key": one.run_key,
        "days": one.days,
        "note": one.note,
    }
