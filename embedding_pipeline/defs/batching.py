"""``batch_api_sensor``: batches are looked after, and the days they were for are made.

Belongs here: one tick, and what it says. Does not belong here: moving a submission on
(``batch_api``), or which days are ready (``pipeline.batch_days``).

Each tick decides from what is there: days that wait for no batch any more, and no run of
which is under way, become one backfill. Its id is made from what it is for, so that a tick
that dies after adding it finds it again.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import dagster as dg

from embedding_pipeline.defs import backfills
from embedding_pipeline.defs.automation import JOB
from embedding_pipeline.defs.orphans import end_orphans
from embedding_pipeline.defs.watching import busy_days
from embedding_pipeline.errors import EmbeddingPipelineError

if TYPE_CHECKING:
    from embedding_pipeline.assembly.batch_keeping import Kept
    from embedding_pipeline.pipeline.batch_days import ReadyDays
    from embedding_pipeline.settings.tree import Settings

SENSOR: Final = "batch_api_sensor"
BATCH_TAG: Final = "embedding_pipeline/batch_days"
"""On every backfill of days whose batches are in, and on its runs."""

ASSETS: Final = ("embeddings", "cost_summary")
ATTEMPTS: Final = 3
"""Backfills for the same deferred chunks that may end before they get to them."""

TICK_SECONDS: Final = 30.0
"""After so long, no more submissions are begun with: Dagster cuts ticks off at 60 s."""


def build_sensor(
    settings_now: "Callable[[], Settings]", days: dg.PartitionsDefinition[str]
) -> dg.SensorDefinition:
    """The sensor. It starts stopped: a person switches it on."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            return dg.SkipReason(_tick(context, settings_now(), days))
        except EmbeddingPipelineError as error:
            raise dg.Failure(str(error)) from None

    return dg.SensorDefinition(
        name=SENSOR,
        evaluation_fn=evaluate,
        job_name=JOB,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Asks after batches, collects them into cache and ledger, and then makes "
        "the days that waited for them.",
    )


def _tick(
    context: dg.SensorEvaluationContext, settings: "Settings", days: dg.PartitionsDefinition[str]
) -> str:
    from embedding_pipeline.assembly.batch_keeping import find_ready, keep
    from embedding_pipeline.clock import SystemClock

    kept = asyncio.run(keep(settings, seconds=TICK_SECONDS))
    for run_id in end_orphans(context.instance, SystemClock()):
        context.log.info("run %s: its process is gone; it counts as failed", run_id)
    ready = asyncio.run(find_ready(settings, busy_days(context.instance, days)))
    return "; ".join(filter(None, (_launch(context, ready), _words(kept, ready))))


def _launch(context: dg.SensorEvaluationContext, ready: "ReadyDays") -> str:
    """Make the days in one backfill, unless one of ours is under way; says what was done."""
    from embedding_pipeline.spaces.decision import Backfill

    if not ready:
        return ""
    active = backfills.active_with(context.instance, BATCH_TAG)
    if active:
        return f"{len(ready.days)} days follow when backfill {active[0]} has ended"
    for attempt in range(1, ATTEMPTS + 1):
        name = f"batch-{ready.key}-{attempt}"
        if backfills.status_of(context.instance, name) is Backfill.ABSENT:
            backfills.add(
                context,
                name,
                ASSETS,
                ready.days,
                tags={BATCH_TAG: ready.key},
                title=f"Make {len(ready.days)} days whose batches are in",
                description="Their vectors are in the cache.",
            )
            return f"launched backfill {name}: {len(ready.days)} days"
    return (
        f"{ATTEMPTS} backfills of {len(ready.days)} days ({ready.days[0]} …) have ended without "
        "getting to them; see their runs, then run these days by hand"
    )


def _words(kept: "Kept", ready: "ReadyDays") -> str:
    parts = [f"{len(kept.left)} batches are under way" if kept.left else "no batch is under way"]
    if ready.waiting:
        parts.append(f"{ready.waiting} days wait")
    if kept.strange:
        parts.append(
            f"batches of {', '.join(kept.strange)} cannot be asked after: the settings lead to "
            "another account or model"
        )
    return "; ".join(parts)
