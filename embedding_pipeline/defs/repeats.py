"""Runs that Dagster said it would repeat, and did not.

Belongs here: finding them, and telling Dagster once more. Does not belong here: runs whose
process is gone (``orphans``), or repeating anything.

Dagster 1.13 writes the event of a failure before it writes that the run has failed. Its daemon
reads events every five seconds; one that it reads in between is one of a run that has not
failed, and it never looks back. The run is then marked "will be retried" for good, and its
backfill waits for a run that nobody starts. The same event once more starts it: the daemon
makes one retry of a run, however often it is told.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import dagster as dg

from embedding_pipeline.defs import backfills
from embedding_pipeline.defs.compat import WILL_RETRY, waits_for_retry
from embedding_pipeline.defs.orphans import is_ours

if TYPE_CHECKING:
    from embedding_pipeline.clock import Clock

TOLD_TAG: Final = ".dagster/embedding_pipeline_told_again"
"""How often Dagster was told. The prefix keeps it out of sight in the UI."""

PATIENCE_SECONDS: Final = 60
"""How long a retry may take to appear: the daemon looks every five seconds."""

MOST_TIMES: Final = 3
"""Times that Dagster is told, before the run is given up and its backfill may end."""


@dataclass(frozen=True)
class Waiting:
    """A failed run that is to be repeated and was not yet.

    Attributes:
        run_id: Dagster's id of it.
        seconds: how long ago it failed, or Dagster was told last.
        told: how often Dagster was told again.
        over: its backfill has ended: nothing is to come of it.
    """

    run_id: str
    seconds: float
    told: int = 0
    over: bool = False


@dataclass(frozen=True)
class Reminders:
    """What is to be done about runs that wait.

    Attributes:
        tell: of these Dagster is told again.
        give_up: these are not to be waited for any longer.
    """

    tell: tuple[str, ...] = ()
    give_up: tuple[str, ...] = ()


def decide(waiting: Iterable[Waiting]) -> Reminders:
    """Which runs have waited too long. Pure."""
    late = [run for run in waiting if not run.over and run.seconds >= PATIENCE_SECONDS]
    return Reminders(
        tell=tuple(run.run_id for run in late if run.told < MOST_TIMES),
        give_up=tuple(run.run_id for run in late if run.told >= MOST_TIMES),
    )


def remind(instance: dg.DagsterInstance, clock: "Clock") -> list[str]:
    """Tell Dagster again of the runs of ours that it forgot; returns what was done, in words."""
    runs = {run.run_id: run for run in _forgotten(instance)}
    found = decide(_waiting(instance, run, clock) for run in runs.values())
    for run_id in found.tell:
        told = int(runs[run_id].tags.get(TOLD_TAG, "0")) + 1
        instance.add_run_tags(run_id, {TOLD_TAG: str(told)})
        instance.report_run_failed(
            runs[run_id], "Dagster is to repeat this run, and did not: it is told once more."
        )
    for run_id in found.give_up:
        instance.add_run_tags(run_id, {WILL_RETRY: "false"})
    return [
        *(f"run {run_id}: its retry did not come; Dagster was told again" for run_id in found.tell),
        *(f"run {run_id}: its retry did not come; given up" for run_id in found.give_up),
    ]


def _forgotten(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    marked = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags={WILL_RETRY: "true"})
    return [run for run in instance.get_runs(marked) if is_ours(run) and waits_for_retry(run)]


def _waiting(instance: dg.DagsterInstance, run: dg.DagsterRun, clock: "Clock") -> Waiting:
    record = instance.get_run_record_by_id(run.run_id)
    ended = record.end_time if record is not None else None
    return Waiting(
        run.run_id,
        seconds=0.0 if ended is None else clock.now() - ended,
        told=int(run.tags.get(TOLD_TAG, "0")),
        over=backfills.is_over(instance, run),
    )
