"""The job ``plan``: what some days would cost, asked from the UI.

Belongs here: the run's config and what the UI shows. Does not belong here: counting.
"""

from typing import Final

import dagster as dg

from embedding_pipeline.defs.days import days_between
from embedding_pipeline.defs.failures import told_plainly
from embedding_pipeline.defs.resources import ConfigParam

JOB: Final = "plan"
SHOWN: Final = 366
"""Most lines of the table that metadata holds."""


class PlanConfig(dg.Config):
    """Which days to plan."""

    start: str | None = None
    """First day, ``YYYY-MM-DD``; none: the first partition."""
    end: str | None = None
    """Last day, included; none: yesterday."""
    model: str | None = None
    """Another model than the settings' one, such as ``openai/text-embedding-3-large``."""


async def plan_days(
    context: dg.OpExecutionContext, config: PlanConfig, settings: ConfigParam
) -> dg.Output[int]:
    """Tokens, price and time of some days, without making them; the output is the cost."""
    from embedding_pipeline.assembly.planning import plan_spending
    from embedding_pipeline.pipeline.plan_words import sentences, summary, table

    with told_plainly():
        days = days_between(settings, config.start, config.end)
        plan = await plan_spending(settings, days, model=config.model)
    lines = list(sentences(plan))
    for line in lines:
        context.log.info(line)
    figures = {key: value for key, value in summary(plan).items() if value is not None}
    metadata: dict[str, dg.MetadataValue] = {
        "plan": dg.MetadataValue.md("\n".join(f"- {line}" for line in lines)),
        "by_day_and_project": dg.MetadataValue.md(table(plan, SHOWN)),
        **{key: _value(value) for key, value in figures.items()},
    }
    return dg.Output(plan.cost_nano_usd or 0, metadata=metadata)


def _value(value: object) -> dg.MetadataValue:
    """Numbers as the UI plots them, anything else as it is."""
    match value:
        case bool():
            return dg.MetadataValue.bool(value)
        case int():
            return dg.MetadataValue.int(value)
        case float():
            return dg.MetadataValue.float(value)
        case list():
            return dg.MetadataValue.json(value)
    return dg.MetadataValue.text(str(value))


def build_plan_job() -> dg.JobDefinition:
    """The job; it has no asset, so that planning never looks like making."""
    op = dg.op(name="plan_days")(plan_days)

    @dg.job(name=JOB, description="What days would cost: tokens, price, time. Spends nothing.")
    def job() -> None:
        op()

    return job
