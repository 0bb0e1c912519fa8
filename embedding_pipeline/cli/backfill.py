"""``embedding-pipeline backfill``: runs over a range of days, without webserver or daemon.

Belongs here: options, what is told on the way, and leaving it to the background.
"""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Final

import click

from embedding_pipeline.cli import summary
from embedding_pipeline.cli.days import DAY
from embedding_pipeline.cli.endings import FAILED
from embedding_pipeline.cli.output import emit, json_lines
from embedding_pipeline.cli.progress import Meter, showing
from embedding_pipeline.errors import BudgetExceeded
from embedding_pipeline.pipeline.words import usd

if TYPE_CHECKING:
    from embedding_pipeline.defs.launch import BackfillOutcome
    from embedding_pipeline.defs.outcomes import RunOutcome
    from embedding_pipeline.settings.tree import Settings

_AGAIN: Final = "from embedding_pipeline.cli import main; main()"


@click.command()
@click.option("--start", type=DAY, required=True, help="First day.")
@click.option("--end", type=DAY, required=True, help="Last day, included.")
@click.option("--assets", help="Only these assets, separated by commas.  [default: all]")
@click.option(
    "--partitions-per-run",
    type=click.IntRange(min=1),
    help="Most days in one run.  [default: 10]",
)
@click.option(
    "--queue",
    is_flag=True,
    help="Leave it to Dagster's daemon and its workers, in runs of spaces.partitions_per_run days.",
)
@click.option("--wait", is_flag=True, help="Stay until it is done; fail when a day fails.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (with --wait).")
def backfill(
    *,
    start: date,
    end: date,
    assets: str | None,
    partitions_per_run: int | None,
    queue: bool,
    wait: bool,
    as_json: bool,
) -> int:
    """Make a range of days in runs of neighbouring days, one after the other.

    A day that fails does not stop the others. Days that are done already make no request.
    It ends with 7 when nothing but a budget stands against the days that are not done.
    Without --wait the work goes on in the background and is written to a log file. The
    runs are in Dagster's UI either way. With --queue the daemon runs them, several at once.
    """
    from embedding_pipeline.defs import launch
    from embedding_pipeline.defs.days import available_days, select_days
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    days = start.isoformat(), end.isoformat()
    select_days(available_days(settings), *days)
    refuse_the_impossible(settings)
    if queue:
        if partitions_per_run is not None:
            raise click.UsageError("with --queue, spaces.partitions_per_run says how long runs are")
        return _queue(settings, days, _names(assets), wait, as_json)
    partitions_per_run = partitions_per_run or launch.PARTITIONS_PER_RUN
    if not wait:
        options = [f"--start={start}", f"--end={end}", f"--partitions-per-run={partitions_per_run}"]
        _leave_to_background(settings, options + ([f"--assets={assets}"] if assets else []))
        return 0
    with showing("Embedding") as meter:
        outcome = launch.backfill(
            settings,
            *days,
            assets=_names(assets),
            partitions_per_run=partitions_per_run,
            on_run=lambda run: _tell_run(run, meter),
            on_progress=meter,
        )
    _tell(settings, outcome, meter.embedded, as_json)
    return status(outcome)


def _names(assets: str | None) -> Sequence[str]:
    from embedding_pipeline.defs import launch

    return launch.ASSETS if assets is None else [name.strip() for name in assets.split(",")]


def _queue(
    settings: "Settings", days: tuple[str, str], assets: Sequence[str], wait: bool, as_json: bool
) -> int:
    """Hand the days to the daemon, and perhaps stay until they are done."""
    from embedding_pipeline.defs import queued

    added = queued.queue(settings, *days, assets=assets)
    click.echo(f"Backfill {added.backfill_id} is queued: {span(added.days)}", err=True)
    if settings.spaces.partitions_per_run is None and len(added.days) > 1:
        click.echo("It is one run: spaces.partitions_per_run spreads it over workers.", err=True)
    if not wait:
        return 0
    outcome = asyncio.run(queued.wait(settings, added, on_count=_tell_count))
    _tell(settings, outcome, None, as_json)
    return status(outcome)


def _tell_count(ended: int, runs: int) -> None:
    click.echo(f"{ended} of {runs} runs have ended", err=True)


def refuse_the_impossible(settings: "Settings") -> None:
    """Raise now what every run would fail with: no key, no such place."""
    from embedding_pipeline.assembly.embedder import build_embedder
    from embedding_pipeline.assembly.parts import build_source
    from embedding_pipeline.clock import SystemClock
    from embedding_pipeline.settings.environment import api_key

    key = api_key(settings.provider)
    build_source(settings)
    build_embedder(settings, key.get_secret_value() if key else None, SystemClock())


def tell_failures(outcome: "BackfillOutcome") -> None:
    """Name the days that failed, one line a reason, on standard error."""
    days_of: dict[str, list[str]] = {}
    for day, reason in outcome.failed.items():
        days_of.setdefault(reason, []).append(day)
    for reason, days in days_of.items():
        click.echo(f"failed: {span(days)}: {reason}", err=True)


def span(days: Sequence[str]) -> str:
    """Days in a few words."""
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]} ({len(days)} days)"


def status(outcome: "BackfillOutcome") -> int:
    """The exit code. Raises click.Abort when it was ended with Ctrl-C."""
    if outcome.stopped:
        raise click.Abort
    tell_failures(outcome)
    if outcome.lacks_only_money:
        return BudgetExceeded.exit_code
    return 0 if outcome.success else FAILED


def _tell_run(run: "RunOutcome", meter: Meter) -> None:
    meter.next_run()
    done = f"{len(run.finished)} of {len(run.partitions)} done"
    click.echo(f"{span(run.partitions)}: {done}, {run.seconds:.0f} s", err=True)


def _tell(
    settings: "Settings", outcome: "BackfillOutcome", embedded: int | None, as_json: bool
) -> None:
    rows = summary.day_rows(settings, outcome.finished)
    now = summary.spent_by_runs(settings, [run.run_id for run in outcome.runs])
    later = summary.deferred_on_days(settings, outcome.finished)
    if as_json:
        found = {"success": outcome.success, "embedded": embedded, **asdict(now)}
        found["deferred"] = later
        click.echo(json_lines({**found, "days": rows, "failed": outcome.failed}))
        return
    emit(summary.with_total(rows), summary.DAY_COLUMNS, as_json=False, empty="")
    texts = "" if embedded is None else f"{embedded:,} texts embedded in "
    click.echo(
        f"\n{len(outcome.finished)} of {len(outcome.partitions)} days are done. {texts}"
        f"{now.requests:,} requests, {now.input_tokens:,} tokens, {usd(now.cost_nano_usd)}."
    )
    if later:
        click.echo(
            f"{later:,} chunks are deferred: see embedding-pipeline failed deferred, and doctor"
        )


def _leave_to_background(settings: "Settings", arguments: Sequence[str]) -> None:
    """Start the same command once more, with ``--wait``, in a session of its own."""
    folder = settings.data_path / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "backfill.log"
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 - this very program
            [sys.executable, "-c", _AGAIN, "backfill", *arguments, "--wait"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    click.echo(f"Started as process {child.pid}; what it says is in {log}")
