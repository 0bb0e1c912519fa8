"""What the build of a space costs, planned in a run: a tick has no time for millions of chunks.

Belongs here: what the UI shows of it. Does not belong here: counting, or
whether the build may go on (``assembly.pricing``).
"""

from typing import TYPE_CHECKING

import dagster as dg

from embedding_pipeline.defs.failures import told_plainly
from embedding_pipeline.defs.orphans import BUILD_TAG

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings


async def price_space(context: dg.OpExecutionContext, settings: "Settings") -> dg.Output[bool]:
    """Plan the days that the build of this run lacks; says whether the build goes on."""
    from embedding_pipeline.assembly.pricing import price_build
    from embedding_pipeline.spaces.records import BuildState

    with told_plainly():
        build = await price_build(settings, context.run.tags[BUILD_TAG])
    if build is None:
        return dg.Output(False, metadata={"superseded": dg.MetadataValue.bool(True)})
    context.log.info("%s: %s: %s", build.target, build.state.value, build.note)
    return dg.Output(
        build.state is BuildState.BUILDING,
        metadata={
            "space": dg.MetadataValue.text(str(build.target)),
            "state": dg.MetadataValue.text(build.state.value),
            "note": dg.MetadataValue.text(build.note),
            "cost_usd": dg.MetadataValue.float(build.cost_nano_usd / 1e9),
        },
    )
