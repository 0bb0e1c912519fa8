"""The job ``space_promotion``: what a build costs, where that takes a run; then the gate.

Belongs here: the run, and its report in the UI. Does not belong here: judging
(``spaces.gate``) or switching (``assembly.switching``).
"""

from typing import TYPE_CHECKING, Final

import dagster as dg

from embedding_pipeline.defs.failures import told_plainly
from embedding_pipeline.defs.orphans import BUILD_TAG, STEP_TAG, claim
from embedding_pipeline.defs.pricing import price_space
from embedding_pipeline.defs.resources import ConfigParam

if TYPE_CHECKING:
    from embedding_pipeline.assembly.switching import Promotion
    from embedding_pipeline.spaces.gate import GateReport

JOB: Final = "space_promotion"
PRICE: Final = "price"
JUDGE: Final = "judge"
"""What a run is to say of the build; a run that somebody launched by hand judges."""

_BAR: Final = 40


async def promote_space(context: dg.OpExecutionContext, settings: ConfigParam) -> dg.Output[bool]:
    """Judge the space that the settings ask for; when the gate says yes, readers get it."""
    from embedding_pipeline.assembly.spaces import read_state, wanted
    from embedding_pipeline.assembly.switching import promote

    claim(context.instance, context.run)
    if context.run.tags.get(STEP_TAG) == PRICE:
        return await price_space(context, settings)
    build = read_state(settings).build
    if build is not None and build.key != context.run.tags.get(BUILD_TAG, build.key):
        return dg.Output(False, metadata={"superseded": dg.MetadataValue.bool(True)})
    target = build.target if build is not None else wanted(settings)
    with told_plainly():
        promotion = await promote(settings, target, by="space_promotion")
    metadata = report_metadata(promotion)
    context.log_event(dg.AssetObservation("embeddings", metadata=metadata))
    for problem in promotion.examination.problems:
        context.log.warning(problem)
    return dg.Output(promotion.promoted, metadata=metadata)


def report_metadata(promotion: "Promotion") -> dict[str, dg.MetadataValue]:
    """The gate's report: figures the UI plots, a table, and the overlaps as bars."""
    found = promotion.examination
    metadata: dict[str, dg.MetadataValue] = {
        "space": dg.MetadataValue.text(str(promotion.target)),
        "promoted": dg.MetadataValue.bool(promotion.promoted),
    }
    if found.problems:
        metadata["problems"] = dg.MetadataValue.md("\n".join(f"- {it}" for it in found.problems))
    if found.report is not None:
        metadata["gate"] = dg.MetadataValue.md(report_table(found.report))
        metadata["neighbours_kept"] = dg.MetadataValue.md(overlap_bars(found.report))
        metadata["report"] = dg.MetadataValue.json(found.report.as_tree())
        metadata |= {
            f"gate_{figure.name}": dg.MetadataValue.float(figure.new)
            for figure in found.report.figures
        }
    return metadata


def report_table(report: "GateReport") -> str:
    """The figures as Markdown."""
    verdict = "passed" if report.passed else "refused"
    lines = [
        f"{report.new} held against {report.old} on {report.chunks:,} chunks: **{verdict}**",
        "",
        "| figure | old | new | asked for | | meaning |",
        "|---|---:|---:|---:|---|---|",
    ]
    for figure in report.figures:
        old = "–" if figure.old is None else f"{figure.old:.3f}"
        verdict = "ok" if figure.passed else "**refused**"
        asked = figure.asked.replace(" ", "\N{NO-BREAK SPACE}")
        lines.append(
            f"| {figure.name} | {old} | {figure.new:.3f} | {asked} | {verdict} | {figure.meaning} |"
        )
    return "\n".join(lines)


def overlap_bars(report: "GateReport") -> str:
    """How many chunks keep how many of their neighbours, as bars of characters."""
    if not report.overlaps:
        return "The old space's neighbours are at the level of chance: nothing to compare with."
    most = max(report.overlaps)
    lines = ["| neighbours kept | chunks | |", "|---:|---:|:---|"]
    for kept, chunks in enumerate(report.overlaps):
        lines.append(f"| {kept} of {report.k} | {chunks:,} | {'█' * round(_BAR * chunks / most)} |")
    return "\n".join(lines)


def build_promotion_job() -> dg.JobDefinition:
    """The job; it has no asset, because it makes none."""
    op = dg.op(name="promote_space")(promote_space)

    @dg.job(
        name=JOB,
        description="Judge the space the settings ask for, and promote it; first, what it costs.",
    )
    def job() -> None:
        op()

    return job
