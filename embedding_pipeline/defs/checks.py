"""The checks: which verdict of the core stands behind which name, a partition at a time.

Belongs here: names, severity, and one evaluation for every partition of a run. Does
not belong here: judging (``pipeline.checks``, ``pipeline.cost``, ``pipeline.budget``).
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from embedding_pipeline.defs import compat
from embedding_pipeline.defs.collector import sparing_the_old
from embedding_pipeline.defs.compat import Evaluations
from embedding_pipeline.defs.failures import AWAY, again_when_away
from embedding_pipeline.defs.resources import EmbedderParam, StoreParam
from embedding_pipeline.defs.stopping import until_stopped
from embedding_pipeline.defs.writing import writing_of
from embedding_pipeline.errors import DataError, EmbeddingPipelineError
from embedding_pipeline.pipeline.reports import CheckVerdict, CostReport

if TYPE_CHECKING:
    import pyarrow as pa

    from embedding_pipeline.defs.materialized import Latest
    from embedding_pipeline.vectors.datasets import Datasets

    Summaries: TypeAlias = Mapping[str, pa.Table | DataError]

Verdicts: TypeAlias = Mapping[str, Mapping[str, CheckVerdict]]
"""By partition, and then by name of the check."""

Judge: TypeAlias = Callable[[Sequence[str], Collection[str]], Awaitable[Verdicts]]
"""Judges partitions by the checks named."""

EMBEDDINGS = {
    "vector_dimension": "Every vector has the length the settings ask for.",
    "vectors_are_finite_unit_norm": "No vector holds NaN or infinity; all have length one.",
    "single_space": "All vectors come from one model, the one the settings name.",
    "every_chunk_accounted_for": "Every chunk has a vector, or is named with the reason why not.",
}
COST_SUMMARY = {
    "within_budget": "The day stays within its budgets.",
    "ledger_balances": "The summary is the sum of the ledger, and every entry tokens × price.",
}


async def embeddings_checks(
    context: dg.AssetCheckExecutionContext, openai: EmbedderParam, vector_store: StoreParam
) -> Evaluations:
    """Judge the vectors of each partition."""
    from embedding_pipeline.pipeline.judging import judge_embeddings

    async with AsyncExitStack() as stack:
        stack.enter_context(again_when_away(context))
        writing = await writing_of(context.run, openai, vector_store)
        services = [
            await stack.enter_async_context(openai.open(context.run.run_id, target))
            for target in writing.targets
        ]

        async def judge(days: Sequence[str], names: Collection[str]) -> Verdicts:
            return in_all(
                [await judge_embeddings(it, vector_store, days, names) for it in services]
            )

        async for event in evaluations(context, judge, latest_of(context), vector_store):
            yield event


def in_all(found: Sequence[Verdicts]) -> Verdicts:
    """The verdicts on all spaces a run writes: the first that fails, else the last one's."""

    def of(day: str, name: str) -> CheckVerdict:
        verdicts = [one[day][name] for one in found]
        return next((verdict for verdict in verdicts if not verdict.passed), verdicts[-1])

    return {day: {name: of(day, name) for name in names} for day, names in found[-1].items()}


async def cost_summary_checks(
    context: dg.AssetCheckExecutionContext, openai: EmbedderParam, vector_store: StoreParam
) -> Evaluations:
    """Judge the costs of each partition."""
    from embedding_pipeline.pipeline.budget import within_budgets
    from embedding_pipeline.pipeline.cost import ledgers_balance, read_summaries

    async with AsyncExitStack() as stack:
        stack.enter_context(again_when_away(context))
        writing = await writing_of(context.run, openai, vector_store)
        service = await stack.enter_async_context(openai.open(context.run.run_id, writing.main))

        async def budgets(summaries: "Summaries") -> Mapping[str, CheckVerdict]:
            reports, unknown = reports_of(summaries)
            return {**unknown, **await within_budgets(service, reports)}

        async def judge(days: Sequence[str], names: Collection[str]) -> Verdicts:
            summaries = await asyncio.to_thread(read_summaries, vector_store, days)
            judges: Mapping[str, Callable[..., Awaitable[Mapping[str, CheckVerdict]]]] = {
                "within_budget": budgets,
                "ledger_balances": partial(ledgers_balance, service, vector_store),
            }
            found = {name: await judges[name](summaries) for name in names}
            return {day: {name: found[name][day] for name in names} for day in days}

        async for event in evaluations(context, judge, latest_of(context), vector_store):
            yield event


async def evaluations(
    context: dg.AssetCheckExecutionContext, judge: Judge, made: "Latest", datasets: "Datasets"
) -> Evaluations:
    """One evaluation for each selected check and each partition of the run.

    A failed one that blocks fails the step once all are told, and so the run; nothing
    downstream is made then.
    """
    from embedding_pipeline.defs.event_log import stored_together
    from embedding_pipeline.pipeline.handfuls import handfuls

    selected = [it for it in context.check_specs if it.key in context.selected_asset_check_keys]
    names = [spec.name for spec in selected]
    with sparing_the_old():
        for days in await handfuls(datasets, context.partition_keys):
            verdicts = await until_stopped(_verdicts(judge, days, names))
            with stored_together(context.instance):
                for spec, day in product(selected, days):
                    yield _evaluation(spec, day, verdicts[day][spec.name], made.get(day))
    for spec in selected:
        yield compat.check_output(spec)


async def _verdicts(judge: Judge, days: Sequence[str], names: Collection[str]) -> Verdicts:
    """What the judge says; days that cannot even be judged have failed."""
    try:
        return await judge(days, names)
    except AWAY:
        raise
    except EmbeddingPipelineError as error:
        failed = CheckVerdict(passed=False, description=str(error))
        return {day: dict.fromkeys(names, failed) for day in days}


def _evaluation(
    spec: dg.AssetCheckSpec,
    partition: str,
    verdict: CheckVerdict,
    made: compat.Target | None,
) -> dg.AssetCheckEvaluation:
    severity = dg.AssetCheckSeverity.ERROR if verdict.blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=verdict.passed,
        metadata=dict(verdict.metadata),
        target_materialization_data=made,
        severity=severity,
        description=verdict.description,
        blocking=spec.blocking,
        partition=partition,
    )


def latest_of(context: dg.AssetCheckExecutionContext) -> "Latest":
    """The latest materialization of each partition of the run, asked for in one go."""
    from embedding_pipeline.defs.materialized import latest_materializations

    asset = next(iter(context.check_specs)).asset_key
    return latest_materializations(context.instance, asset, context.partition_keys)


def reports_of(summaries: "Summaries") -> tuple[list[CostReport], dict[str, CheckVerdict]]:
    """The costs of the days as they were written; a verdict where they cannot be read."""
    from embedding_pipeline.pipeline.cost import report_of

    reports, unknown = list[CostReport](), dict[str, CheckVerdict]()
    for day, summary in summaries.items():
        if isinstance(summary, DataError):
            unknown[day] = CheckVerdict(passed=False, description=str(summary))
        else:
            reports.append(report_of(day, summary))
    return reports, unknown


def build_checks(days: dg.PartitionsDefinition[str]) -> Sequence[dg.AssetChecksDefinition]:
    """All checks, in the partitions of what they check."""
    return [
        dg.multi_asset_check(specs=list(_specs("embeddings", EMBEDDINGS, days)), can_subset=True)(
            embeddings_checks
        ),
        dg.multi_asset_check(
            specs=list(_specs("cost_summary", COST_SUMMARY, days)), can_subset=True
        )(cost_summary_checks),
    ]


def _specs(
    asset: str, checks: Mapping[str, str], days: dg.PartitionsDefinition[str]
) -> Iterable[dg.AssetCheckSpec]:
    for name, description in checks.items():
        yield dg.AssetCheckSpec(
            name,
            asset=asset,
            description=description,
            blocking=True,  # of an evaluation with severity ERROR; a WARN never blocks
            partitions_def=days,
        )
