"""Our definitions with every sensor switched on, or a single one; one looks more often."""

import os
from collections.abc import Iterator
from typing import Any, Final

import dagster as dg

from embedding_pipeline.definitions import build_defs

MODULE: Final = __name__
ONLY: Final = "TESTS_ONLY_SENSOR"
"""The variable that names the one sensor that is switched on; all are where it is not set."""


def on(sensor: dg.SensorDefinition) -> dg.SensorDefinition:
    """The same sensor, running from the start if it is meant.

    One looks every two seconds. The others are to do nothing, and a look costs CPU.
    """
    only = os.environ.get(ONLY, "")
    often = sensor.name == (only or "model_change_sensor")
    status = dg.DefaultSensorStatus

    def evaluate(context: dg.SensorEvaluationContext) -> Any:
        return sensor(context)  # Dagster would not see that the sensor itself wants a context

    return dg.SensorDefinition(
        name=sensor.name,
        evaluation_fn=evaluate,
        job_name=sensor.targets[0].job_name if sensor.targets else None,
        minimum_interval_seconds=2 if often else 30,
        default_status=status.RUNNING if often or not only else status.STOPPED,
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
