"""``doctor`` on what goes on elsewhere: workers that take runs, and batches at the provider.

Belongs here: what is found said in words, with a remedy. Does not belong here: asking
(``defs.workers``), or the books (``assembly.batch_keeping``).
"""

import asyncio
from typing import TYPE_CHECKING, Final

from embedding_pipeline.cli.findings import Finding, Status

if TYPE_CHECKING:
    from embedding_pipeline.assembly.batch_keeping import Open
    from embedding_pipeline.defs.workers import Workers
    from embedding_pipeline.settings.tree import Settings

WORKERS: Final = "workers"
BATCHES: Final = "batches"
APP: Final = "embedding_pipeline.defs.celery_app"


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things in words: 1 job, 3 jobs."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def check_workers(settings: "Settings") -> Finding:
    """Whether a run that is queued would be started."""
    from embedding_pipeline.defs.instance import dagster_home
    from embedding_pipeline.defs.workers import find_workers

    found = find_workers(dagster_home(settings))
    if found is None:
        return Finding(Status.OK, WORKERS, "none are needed: no Celery launcher in dagster.yaml")
    return workers_finding(found)


def workers_finding(found: "Workers") -> Finding:
    """What that means. Pure."""
    if found.problem:
        return Finding(
            Status.FAIL,
            WORKERS,
            f"the broker at {found.broker} cannot be reached ({found.problem})",
            "start it, or correct DAGSTER_BROKER_URL (run_launcher in dagster.yaml)",
        )
    if not found.serving:
        others = f"; {counted(len(found.others), 'worker')} of other queues" if found.others else ""
        return Finding(
            Status.FAIL,
            WORKERS,
            f"the broker at {found.broker} answers, and no worker of queue {found.queue}{others}",
            f"start one where DAGSTER_HOME is the same: celery -A {APP} worker -Q {found.queue}",
        )
    workers = counted(len(found.serving), "worker")
    takes = "takes" if len(found.serving) == 1 else "take"
    return Finding(Status.OK, WORKERS, f"{workers} of queue {found.queue} {takes} runs")


def check_batches(settings: "Settings") -> Finding:
    """Whether what was sent to the Batch API is going to be collected."""
    from embedding_pipeline.assembly.batch_keeping import under_way
    from embedding_pipeline.clock import SystemClock

    return batches_finding(asyncio.run(under_way(settings, SystemClock())))


def batches_finding(found: "Open") -> Finding:
    """What that means. Pure."""
    if not found.left:
        return Finding(Status.OK, BATCHES, "none is under way")
    texts = sum(one.inputs for one in found.left)
    said = f"{counted(len(found.left), 'batch', 'batches')} under way, {counted(texts, 'text')}"
    if found.strange:
        queues = ", ".join(sorted({one.queue for one in found.strange}))
        names = " ".join(one.id[:12] for one in found.strange)
        return Finding(
            Status.WARN,
            BATCHES,
            f"{said}; the settings lead to another account or model than that of "
            f"{len(found.strange)} ({queues})",
            "name that account and model again and collect; or give up: "
            f"embedding-pipeline batch forget {names}",
        )
    if found.late:
        return Finding(
            Status.WARN,
            BATCHES,
            f"{said}, {len(found.late)} past batch_api.deadline_hours",
            "switch batch_api_sensor on, or run: embedding-pipeline batch collect",
        )
    return Finding(Status.OK, BATCHES, said)
