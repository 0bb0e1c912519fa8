"""The definitions put together: assets, checks, resources, job and schedule.

Belongs here: joining what the other modules of this folder define. Does not belong
here: any definition of its own, or loading settings.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import dagster as dg

from embedding_pipeline.defs import batching, model_change, source_change
from embedding_pipeline.defs.assets import build_assets
from embedding_pipeline.defs.automation import JOB, build_automation
from embedding_pipeline.defs.checks import build_checks
from embedding_pipeline.defs.compat import declaring
from embedding_pipeline.defs.days import daily_partitions
from embedding_pipeline.defs.planning import build_plan_job
from embedding_pipeline.defs.promotion import build_promotion_job
from embedding_pipeline.defs.resources import build_resources
from embedding_pipeline.defs.watching import build_watching

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings


def build_graph(
    settings: "Settings",
    overrides: Mapping[str, object],
    current: "Callable[[], Settings] | None" = None,
) -> dg.Definitions:
    """Everything Dagster is to know; ``overrides`` stand in place of resources, by key.

    ``current`` reads the settings anew, for what lives longer than a run.

    Runs are executed in one process: the steps are a chain and wait on the network, and
    a process for each step costs four times the CPU of the whole run.
    """
    days = daily_partitions(settings)
    now = current or (lambda: settings)
    with declaring():
        assets = dg.Definitions(
            assets=build_assets(days, settings),
            asset_checks=build_checks(days),
            jobs=[build_plan_job(), build_promotion_job()],
            sensors=[
                model_change.build_sensor(now),
                source_change.build_sensor(now, JOB),
                batching.build_sensor(now, days),
            ],
            resources=build_resources(settings, overrides),
            executor=dg.in_process_executor,
        )
        watching = dg.Definitions(sensors=build_watching(now, days))
        return dg.Definitions.merge(assets, build_automation(), watching)
