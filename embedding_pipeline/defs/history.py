"""``cost_history``: the one asset without partitions, with its plots in the metadata.

Belongs here: its definition and what the UI shows. Does not belong here: figures or drawing.
"""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from embedding_pipeline.defs.compat import Result
from embedding_pipeline.defs.failures import told_plainly
from embedding_pipeline.defs.resources import ConfigParam

if TYPE_CHECKING:
    from embedding_pipeline.assembly.history import CostHistory

COST_HISTORY: Final = "cost_history"


async def cost_history(context: dg.AssetExecutionContext, settings: ConfigParam) -> Result:
    """All spending by day, project, user and model, with savings, a projection and advice."""
    from embedding_pipeline.assembly.history import cost_history as gather
    from embedding_pipeline.assembly.history import write_report

    with told_plainly():
        found = await gather(settings)
        path = await asyncio.to_thread(write_report, settings, found)
    for advice in found.advice:
        context.log.info("%s. %s", advice.title, advice.text)
    return dg.MaterializeResult(metadata=_shown(found, str(path)))


def _shown(found: "CostHistory", path: str) -> dict[str, dg.MetadataValue]:
    from embedding_pipeline.pipeline.charts import as_image
    from embedding_pipeline.pipeline.history.figures import project
    from embedding_pipeline.pipeline.history.report import charts_of

    history, month = found.history, project(found.history)
    figures = {
        "cost_usd": history.cost_nano_usd,
        "unknown_usd": history.unknown_nano_usd,
        "saved_usd": history.saved_nano_usd,
        "month_usd": month.spent,
        **({} if month.expected is None else {"expected_month_usd": month.expected}),
    }
    words = "\n".join(f"- **{advice.title}**: {advice.text}" for advice in found.advice)
    return {
        **{key: dg.MetadataValue.float(nano / 1e9) for key, nano in figures.items()},
        "dagster/row_count": dg.MetadataValue.int(len(history.spending)),
        "report": dg.MetadataValue.path(path),
        "advice": dg.MetadataValue.md(words or "Nothing in the figures asks for a change."),
        **{
            chart.name: dg.MetadataValue.md(as_image(chart.title, chart.svg))
            for chart in charts_of(history)
        },
    }


def build_cost_history(common: dict[str, Any]) -> dg.AssetsDefinition:
    """The asset; made whenever somebody asks, from all that is there by then."""
    define = partial(dg.asset, deps=["cost_summary"], kinds={"python", "parquet"}, **common)
    return define()(cost_history)
