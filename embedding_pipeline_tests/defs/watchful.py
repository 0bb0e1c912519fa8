"""Our definitions with every sensor and schedule switched on, one of them looking more often."""

from collections.abc import Iterator
from typing import Any, Final

import dagster as dg

from embedding_pipeline.definitions import build_defs

MODULE: Final = __name__
EVERY_SECONDS: Final = {"model_change_sensor": 2}
"""The others look every half minute: they are to do nothing, and a look costs CPU."""


def on(sensor: dg.SensorDefinition) -> dg.SensorDefinition:
    """The same sensor, running from the start."""

    def evaluate(context: dg.SensorEvaluationContext) -> Any:
        try:
            return sensor(context)
        except dg.DagsterInvalidInvocationError:  # it wants no context
            return sensor()

    return dg.SensorDefinition(
        name=sensor.name,
        evaluation_fn=evaluate,
        job_name=sensor.targets[0].job_name if sensor.targets else None,
        minimum_interval_seconds=EVERY_SECONDS.get(sensor.name, 30),
        default_status=dg.DefaultSensorStatus.RUNNING,
    )


def _sensors(defs: dg.Definitions) -> Iterator[dg.SensorDefinition]:
    for sensor in defs.sensors or ():
        assert isinstance(sensor, dg.SensorDefinition)
        yield on(sensor)


@dg.definitions
def defs() -> dg.Definitions:
    """What a code location loads."""
    ours = build_defs()
    return dg.Definitions(
        assets=ours.assets,
        asset_checks=ours.asset_checks,
        jobs=ours.jobs,
        schedules=ours.schedules,
        sensors=list(_sensors(ours)),
        resources=ours.resources,
        executor=ours.executor,
    )
