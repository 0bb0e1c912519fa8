"""Runs of ours whose process is gone.

Belongs here: finding the ones that were killed, and saying so. Dagster watches over runs
that it launched itself; one that our command line ran in its own process would stand as
"started" for good, and its partitions as being materialized. Does not belong here:
running anything again.
"""

import json
from typing import TYPE_CHECKING, Final

import dagster as dg

from embedding_pipeline.clock import SystemClock

if TYPE_CHECKING:
    from embedding_pipeline.clock import Clock
    from embedding_pipeline.state.owners import Owner

PROCESS_TAG: Final = ".dagster/embedding_pipeline_process"
"""Which process a run is in. The prefix keeps it out of sight in the UI."""

BUILD_TAG: Final = "embedding_pipeline/space_build"
"""On every run of a shadow build: the build's key."""

STEP_TAG: Final = "embedding_pipeline/space_step"
"""On a run that makes nothing: what it is to say of the build."""

RECOVERY_TAG: Final = "embedding_pipeline/recovery"
"""On a run that ``recovery_sensor`` asked for: which deferral it is for."""

UNCLAIMED_SECONDS: Final = 600
"""How long a run may be at work before its first step says which process it is in.

Killed before that, it says nothing for good.
"""

_UNFINISHED: Final = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def process_tag(run_id: str) -> dict[str, str]:
    """The tag for a run that is about to start in this process.

    It names the run: a retry is made with all tags of the run it repeats, whose process is gone.
    """
    from embedding_pipeline.state.owners import this_process

    here = this_process()
    return {PROCESS_TAG: json.dumps([here.host, here.pid, here.started, run_id])}


def runs_of(
    instance: dg.DagsterInstance, step: str, key: str, since_ms: int = 0
) -> tuple[bool, int]:
    """Whether a run for a step of a build is under way, and how many ended since an instant."""
    records = instance.get_run_records(dg.RunsFilter(tags={BUILD_TAG: key, STEP_TAG: step}))
    ends = [record.end_time or 0.0 for record in records if record.dagster_run.is_finished]
    return len(ends) < len(records), sum(end * 1000 >= since_ms for end in ends)


def claim(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Note which process a run is in, where whoever launched it did not.

    Dagster's default launcher does not notice when a run's process dies with the daemon: the
    run, and the backfill it belongs to, would go on for ever.
    """
    if _owner(run) is None:
        instance.add_run_tags(run.run_id, process_tag(run.run_id))


def is_ours(run: dg.DagsterRun) -> bool:
    """Whether a run is of this pipeline, as far as it says so itself."""
    return PROCESS_TAG in run.tags or BUILD_TAG in run.tags


def end_orphans(instance: dg.DagsterInstance, clock: "Clock | None" = None) -> list[str]:
    """Mark our runs whose process is gone as failed; returns their ids.

    Where the instance retries runs (``run_retries``), Dagster does so then, within the same
    backfill: a crash does not end it.
    """
    now = (clock or SystemClock()).now()
    found = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED)):
        run = record.dagster_run
        why = _why_gone(run, None if record.start_time is None else now - record.start_time)
        if why:
            instance.report_run_failed(
                run, f"{why} What it paid for is in the cache: run the same days again."
            )
            found.append(run.run_id)
    return found


def _why_gone(run: dg.DagsterRun, seconds: float | None) -> str:
    """Why a run counts as dead; "" while it may live. ``seconds``: since it started."""
    from embedding_pipeline.state.owners import ended

    owner = _owner(run)
    if owner is not None:
        gone = ended(owner)
        return f"Process {owner.pid} ended without a word, as when it is killed." if gone else ""
    silent = seconds is not None and seconds > UNCLAIMED_SECONDS
    watched = BUILD_TAG in run.tags or RECOVERY_TAG in run.tags
    if silent and watched and run.status is dg.DagsterRunStatus.STARTED:
        return f"Started {seconds:.0f} seconds ago, it never said which process it is in."
    return ""


def _owner(run: dg.DagsterRun) -> "Owner | None":
    """The process of a run, if it was noted for this very run."""
    from embedding_pipeline.state.owners import Owner

    try:
        host, pid, started, run_id = json.loads(run.tags.get(PROCESS_TAG, ""))
        owner = Owner("", str(host), int(pid), str(started))
    except (ValueError, TypeError):
        return None
    return owner if run_id == run.run_id else None
