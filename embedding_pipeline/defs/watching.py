"""Sensors around money: alerts that go out, and deferred work that goes on.

Belongs here: signatures, run requests, what a tick says. Does not belong here: deciding
(``pipeline.recovery``) or sending (``alerts``). Both start stopped: a person switches them on.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import dagster as dg

from embedding_pipeline.defs.automation import JOB
from embedding_pipeline.defs.compat import days_of_run
from embedding_pipeline.defs.orphans import RECOVERY_TAG, end_orphans
from embedding_pipeline.errors import EmbeddingPipelineError

if TYPE_CHECKING:
    from embedding_pipeline.pipeline.recovery import Recovery
    from embedding_pipeline.settings.tree import Settings

ASSETS: Final = ("embeddings", "cost_summary")
AT_A_TIME: Final = 10
"""Days launched in one tick."""

REMEMBERED: Final = 1000
"""How many earlier launches are looked at."""

_UNFINISHED: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def build_watching(
    current: "Callable[[], Settings]", days: dg.PartitionsDefinition[str]
) -> Sequence[dg.SensorDefinition]:
    """The sensors that watch budgets.

    ``current`` gives the settings as they are at a tick: a limit that was raised counts
    without a reload of the code location.
    """
    return [_budget_alerts(current), _recovery(current, days)]


def _budget_alerts(current: "Callable[[], Settings]") -> dg.SensorDefinition:
    @dg.sensor(
        name="budget_alert_sensor",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Tells people when a share of a budget is spent: each alert once.",
    )
    def budget_alert_sensor() -> dg.SkipReason:
        from embedding_pipeline.assembly.watching import send_alerts

        try:
            settings = current()
            if settings.alerts.webhook_url_env is None:
                return dg.SkipReason("alerts.webhook_url_env is not set: nowhere to send alerts")
            delivery = asyncio.run(send_alerts(settings))
        except EmbeddingPipelineError as error:
            raise dg.Failure(str(error)) from None
        problem = f"; {delivery.problem}" if delivery.problem else ""
        return dg.SkipReason(f"{delivery.sent} alerts sent{problem}")

    return budget_alert_sensor


def _recovery(
    current: "Callable[[], Settings]", days: dg.PartitionsDefinition[str]
) -> dg.SensorDefinition:
    @dg.sensor(
        name="recovery_sensor",
        job_name=JOB,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Runs days with deferred chunks again once the provider answers and the "
        "budget has room for them.",
    )
    def recovery_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        from embedding_pipeline.assembly.watching import find_recovery

        for run_id in end_orphans(context.instance):  # its days would look busy for good
            context.log.warning("run %s was killed; its days are run again", run_id)
        try:
            found = asyncio.run(
                find_recovery(
                    current(),
                    busy=busy_days(context.instance, days),
                    tried=_tried(context.instance),
                    most=AT_A_TIME,
                )
            )
        except EmbeddingPipelineError as error:
            raise dg.Failure(str(error)) from None
        requests = [
            dg.RunRequest(
                run_key=launch.key,
                partition_key=launch.partition,
                asset_selection=[dg.AssetKey(name) for name in ASSETS],
                tags={RECOVERY_TAG: launch.pass_id},
            )
            for launch in found.launches
        ]
        if requests:
            return dg.SensorResult(run_requests=requests)
        return dg.SensorResult(skip_reason=_reasons(found))

    return recovery_sensor


def _reasons(found: "Recovery") -> str:
    words = [f"{n} days: {why}" for why, n in Counter(found.waiting.values()).items()]
    if found.forgotten:
        words.append(f"{found.forgotten} chunks of a space that is not written any more: forgotten")
    return "; ".join(words) or "nothing is deferred"


def busy_days(instance: dg.DagsterInstance, days: dg.PartitionsDefinition[str]) -> set[str]:
    """The days a run is under way or queued for."""
    every = days.get_partition_keys(dynamic_partitions_store=instance)
    busy: set[str] = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        first, last = days_of_run(run.tags)
        busy.update(day for day in every if first <= day <= last)
    return busy


def _tried(instance: dg.DagsterInstance) -> Counter[str]:
    """How many runs there were for each deferral."""
    ours = dg.RunsFilter(tags={"dagster/sensor_name": "recovery_sensor"})
    runs = instance.get_runs(ours, limit=REMEMBERED)
    return Counter(run.tags[RECOVERY_TAG] for run in runs if RECOVERY_TAG in run.tags)
