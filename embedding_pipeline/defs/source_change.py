"""``source_change_sensor``: files of past days are no longer what their chunks were made from.

Belongs here: looking at the source, and asking for runs of just those days. Does not belong
here: what a change is (``pipeline.source_changes``).

Each run is named by the day and by what its source looks like now, so the same change asks
once, whatever dies meanwhile; a run that failed is asked for again, a few times.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import dagster as dg

from embedding_pipeline.clock import SystemClock
from embedding_pipeline.defs.failures import told_plainly

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings

SENSOR: Final = "source_change_sensor"
STAMP_TAG: Final = "embedding_pipeline/source_stamp"
DAY_TAG: Final = "dagster/partition"
MAX_RUNS: Final = 3
"""Runs of one day for one change that may fail before a person is asked."""


def evaluate(
    context: dg.SensorEvaluationContext, settings: "Settings"
) -> dg.SensorResult | dg.SkipReason:
    """One tick."""
    from embedding_pipeline.assembly.parts import build_datasets, build_source
    from embedding_pipeline.pipeline.source_changes import look

    verified: Mapping[str, str] = json.loads(context.cursor) if context.cursor else {}
    datasets = build_datasets(settings)
    first = settings.start_date.isoformat()
    days = [day for day in datasets.days("raw_chunks") if day >= first]
    clock = SystemClock()
    begun = clock.monotonic()

    def known(day: str, stamp: str) -> bool:
        return bool(_runs(context.instance, day, stamp))

    with told_plainly():
        found = look(
            build_source(settings),
            datasets,
            days,
            verified,
            known=known,
            elapsed=lambda: clock.monotonic() - begun,
        )
    asked = [_request(context.instance, day, stamp) for day, stamp in found.changed.items()]
    requests = [request for request in asked if request is not None]
    cursor = json.dumps(found.verified)
    if requests:
        return dg.SensorResult(run_requests=requests, cursor=cursor)
    return dg.SensorResult(skip_reason=_why(len(days), len(found.changed)), cursor=cursor)


def _request(instance: dg.DagsterInstance, day: str, stamp: str) -> dg.RunRequest | None:
    """The run for a day, unless it is under way or failed too often."""
    runs = _runs(instance, day, stamp)
    if len(runs) >= MAX_RUNS or any(not run.is_finished for run in runs):
        return None
    return dg.RunRequest(
        run_key=f"source:{day}:{stamp}:{len(runs)}", partition_key=day, tags={STAMP_TAG: stamp}
    )


def _runs(instance: dg.DagsterInstance, day: str, stamp: str) -> Sequence[dg.DagsterRun]:
    """The runs that were asked for because of one change of one day."""
    return list(instance.get_runs(dg.RunsFilter(tags={DAY_TAG: day, STAMP_TAG: stamp})))


def _why(days: int, changed: int) -> str:
    if not changed:
        return f"the sources of all {days} days are what their chunks were made from"
    return (
        f"{changed} days have changed; their runs are under way, or failed {MAX_RUNS} times: mend "
        "what failed, then run those days"
    )


def build_sensor(settings_now: "Callable[[], Settings]", job_name: str) -> dg.SensorDefinition:
    """The sensor. It starts stopped: a person switches it on."""
    return dg.SensorDefinition(
        name=SENSOR,
        evaluation_fn=lambda context: evaluate(context, settings_now()),
        job_name=job_name,
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Files of past days that changed, came late or went away: only those days.",
    )
