"""``embedding-pipeline backfill``: runs over a range of days, without webserver or daemon.

Belongs here: options, what is told on the way, and leaving it to the background.
"""

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
    default=10,
    show_default=True,
    help="Most days in one run.",
)
@click.option("--wait", is_flag=True, help="Stay until it is done; fail when a day fails.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON (with --wait).")
def backfill(
    start: date,
    end: date,
    assets: str | None,
    partitions_per_run: int,
    wait: bool,
    as_json: bool,
) -> int:
    """Make a range of days in runs of neighbouring days, one after the other.

    A day that fails does not stop the others. Days that are done already make no request.
    Without --wait the work goes on in the background and is written to a log file. The
    runs are in Dagster's UI either way.
    """
    from embedding_pipeline.defs import launch
    from embedding_pipeline.settings.loading import load_settings

    settings = load_settings()
    days = start.isoformat(), end.isoformat()
    launch.select_days(launch.available_days(settings), *days)
    refuse_the_impossible(settings)
    if not wait:
        options = [f"--start={start}", f"--end={end}", f"--partitions-per-run={partitions_per_run}"]
        _leave_to_background(settings, options + ([f"--assets={assets}"] if assets else []))
        return 0
    with showing("Embedding") as meter:
        outcome = launch.backfill(
            settings,
            *days,
            assets=launch.ASSETS
            if assets is None
            else [name.strip() for name in assets.split(",")],
            partitions_per_run=partitions_per_run,
            on_run=lambda run: _tell_run(run, meter),
            on_progress=meter,
        )
    _tell(settings, outcome, meter, as_json)
    return status(outcome)


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
    return 0 if outcome.success else FAILED


def _tell_run(run: "RunOutcome", meter: Meter) -> None:
    meter.next_run()
    done = f"{len(run.finished)} of {len(run.partitions)} done"
    click.echo(f"{span(run.partitions)}: {done}, {run.seconds:.0f} s", err=True)


def _tell(settings: "Settings", outcome: "BackfillOutcome", meter: Meter, as_json: bool) -> None:
    rows = summary.day_rows(settings, outcome.finished)
    now = summary.spent_by_runs(settings, [run.run_id for run in outcome.runs])
    later = summary.deferred_on_days(settings, outcome.finished)
    if as_json:
        found = {"success": outcome.success, "embedded": meter.embedded, **asdict(now)}
        found["deferred"] = later
        click.echo(json_lines({**found, "days": rows, "failed": outcome.failed}))
        return
    emit(summary.with_total(rows), summary.DAY_COLUMNS, as_json=False, empty="")
    click.echo(
        f"\n{len(outcome.finished)} of {len(outcome.partitions)} days are done. {meter.embedded:,} "
        f"texts embedded in {now.requests:,} requests, {now.input_tokens:,} tokens, "
        f"{usd(now.cost_nano_usd)}."
    )
    if later:
        click.echo(f"{later:,} chunks are deferred: see embedding-pipeline failed deferred")


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
