"""Runs of ours whose process is gone.

Belongs here: finding the ones that were killed, and saying so. Dagster watches over runs
that it launched itself; one that our command line ran in its own process would stand as
"started" for good, and its partitions as being materialized. Does not belong here:
running anything again.
"""

import json
from typing import TYPE_CHECKING, Final

import dagster as dg

if TYPE_CHECKING:
    from embedding_pipeline.state.owners import Owner

PROCESS_TAG: Final = ".dagster/embedding_pipeline_process"
"""Which process a run is in. The prefix keeps it out of sight in the UI."""

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


def claim(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Note which process a run is in, where whoever launched it did not.

    Dagster's default launcher does not notice when a run's process dies with the daemon: the
    run, and the backfill it belongs to, would go on for ever.
    """
    if _owner(run) is None:
        instance.add_run_tags(run.run_id, process_tag(run.run_id))


def end_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Mark our runs whose process is gone as failed; returns their ids.

    Where the instance retries runs (``run_retries``), Dagster does so then, within the same
    backfill: a crash does not end it.
    """
    from embedding_pipeline.state.owners import ended

    found = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        owner = _owner(run)
        if owner is not None and ended(owner):
            instance.report_run_failed(
                run,
                f"Process {owner.pid} ended without a word, as when it is killed. What it paid "
                "for is in the cache: run the same days again.",
            )
            found.append(run.run_id)
    return found


def _owner(run: dg.DagsterRun) -> "Owner | None":
    """The process of a run, if it was noted for this very run."""
    from embedding_pipeline.state.owners import Owner

    try:
        host, pid, started, run_id = json.loads(run.tags.get(PROCESS_TAG, ""))
        owner = Owner("", str(host), int(pid), str(started))
    except (ValueError, TypeError):
        return None
    return owner if run_id == run.run_id else None
