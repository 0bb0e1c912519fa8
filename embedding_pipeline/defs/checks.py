"""The checks: which verdict of the core stands behind which name, a partition at a time.

Belongs here: names, severity, and one evaluation for every partition of a run. Does
not belong here: judging (``pipeline.checks``, ``pipeline.cost``, ``pipeline.budget``).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg

from embedding_pipeline.defs import compat, metadata
from embedding_pipeline.defs.compat import Evaluations
from embedding_pipeline.defs.event_log import stored_together
from embedding_pipeline.defs.materialized import Latest, latest_materializations
from embedding_pipeline.defs.resources import EmbedderParam, StoreParam
from embedding_pipeline.defs.stopping import until_stopped
from embedding_pipeline.defs.writing import writing_of
from embedding_pipeline.errors import DataError, EmbeddingPipelineError
from embedding_pipeline.pipeline.reports import CheckVerdict

if TYPE_CHECKING:
    from embedding_pipeline.assembly.service import EmbeddingService

Judge: TypeAlias = Callable[[str], Awaitable[CheckVerdict]]

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
    from embedding_pipeline.pipeline import checks
    from embedding_pipeline.pipeline.accounting import representative_days

    async with AsyncExitStack() as stack:
        writing = await writing_of(context.run, openai, vector_store)
        services = [
            await stack.enter_async_context(openai.open(context.run.run_id, target))
            for target in writing.targets
        ]

        def of_file(judge: Callable[..., CheckVerdict]) -> Judge:
            return in_all(
                [
                    partial(asyncio.to_thread, judge, vector_store, it.space, it.dimensions)
                    for it in services
                ]
            )

        def accounted_for(service: "EmbeddingService") -> Judge:
            async def judge(day: str) -> CheckVerdict:
                held, later = await service.quarantined(day), await service.deferred(day)
                others = await asyncio.to_thread(representative_days, vector_store, day)
                earlier = {
                    other: await service.quarantined(other) | await service.deferred(other)
                    for other in others
                }
                judged = partial(checks.every_chunk_accounted_for, earlier=earlier)
                return await asyncio.to_thread(
                    judged, vector_store, service.space, day, held, later
                )

            return judge

        judges: dict[str, Judge] = {
            "vector_dimension": of_file(checks.vector_dimension),
            "vectors_are_finite_unit_norm": of_file(checks.vectors_are_finite_unit_norm),
            "single_space": of_file(checks.single_space),
            "every_chunk_accounted_for": in_all([accounted_for(it) for it in services]),
        }
        async for event in evaluations(context, judges, latest_of(context)):
            yield event


def in_all(judges: Sequence[Judge]) -> Judge:
    """The verdict on every space a run writes: the first that fails, else the last one's."""

    async def judge(day: str) -> CheckVerdict:
        verdicts = [await one(day) for one in judges]
        return next((verdict for verdict in verdicts if not verdict.passed), verdicts[-1])

    return judge


async def cost_summary_checks(
    context: dg.AssetCheckExecutionContext, openai: EmbedderParam, vector_store: StoreParam
) -> Evaluations:
    """Judge the costs of each partition."""
    from embedding_pipeline.pipeline.budget import within_budget
    from embedding_pipeline.pipeline.cost import ledger_balances

    writing = await writing_of(context.run, openai, vector_store)
    async with openai.open(context.run.run_id, writing.main) as service:
        made = latest_of(context)

        async def budget(day: str) -> CheckVerdict:
            report = metadata.cost_report(day, recorded(made, "cost_summary", day))
            return await within_budget(service, report)

        judges: dict[str, Judge] = {
            "within_budget": budget,
            "ledger_balances": lambda day: ledger_balances(service, vector_store, day),
        }
        async for event in evaluations(context, judges, made):
            yield event


async def evaluations(
    context: dg.AssetCheckExecutionContext, judges: Mapping[str, Judge], made: Latest
) -> Evaluations:
    """One evaluation for each selected check and each partition of the run.

    A failed one that blocks fails the step once all are told, and so the run; nothing
    downstream is made then.
    """
    for spec in context.check_specs:
        if spec.key not in context.selected_asset_check_keys:
            continue
        with stored_together(context.instance):
            for partition in context.partition_keys:
                verdict = await until_stopped(_verdict(judges[spec.name], partition))
                yield _evaluation(spec, partition, verdict, made.get(partition))
        yield compat.check_output(spec)


async def _verdict(judge: Judge, partition: str) -> CheckVerdict:
    """What the judge says; data that cannot even be judged has failed."""
    try:
        return await judge(partition)
    except EmbeddingPipelineError as error:
        return CheckVerdict(passed=False, description=str(error))


def _evaluation(
    spec: dg.AssetCheckSpec,
    partition: str,
    verdict: CheckVerdict,
    made: dg.EventLogRecord | None,
) -> dg.AssetCheckEvaluation:
    severity = dg.AssetCheckSeverity.ERROR if verdict.blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=verdict.passed,
        metadata=dict(verdict.metadata),
        target_materialization_data=compat.target_materialization(made),
        severity=severity,
        description=verdict.description,
        blocking=spec.blocking,
        partition=partition,
    )


def latest_of(context: dg.AssetCheckExecutionContext) -> Latest:
    """The latest materialization of each partition of the run, asked for in one go."""
    asset = next(iter(context.check_specs)).asset_key
    return latest_materializations(context.instance, asset, context.partition_keys)


def recorded(made: Latest, asset: str, day: str) -> dict[str, float]:
    """The figures of the latest materialization of a day. Raises DataError."""
    event = made[day].asset_materialization if day in made else None
    if event is None:
        raise DataError(f"{asset} {day} was never materialized here; materialize it, then check it")
    return metadata.figures_of(event.metadata)


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
