"""What runs the graph: the job and the schedule.

Belongs here: when something runs. Does not belong here: what it does.
"""

from typing import Final

import dagster as dg

from embedding_pipeline.defs.assets import GROUP
from embedding_pipeline.defs.history import COST_HISTORY

JOB: Final = "embedding_job"
SCHEDULE: Final = "daily_embedding_schedule"
HOUR: Final = 1
"""One hour after the day has ended, so that what arrives late is there."""


def build_automation() -> dg.Definitions:
    """The job over the whole graph, and the schedule that runs it for the day before.

    The schedule starts stopped: a person switches it on.
    """
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.groups(GROUP) - dg.AssetSelection.assets(COST_HISTORY),
        description="From chunks to vectors, costs and checks, for a day or a range of days.",
    )
    schedule = dg.build_schedule_from_partitioned_job(
        job,
        name=SCHEDULE,
        description="Every night, the day that has just ended.",
        hour_of_day=HOUR,
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )
    return dg.Definitions(jobs=[job], schedules=[schedule])
