"""The four assets: each a signature, one call of the core, and what to say of it.

Belongs here: names, dependencies and presentation. Does not belong here: any work.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from embedding_pipeline.defs import metadata
from embedding_pipeline.defs.compat import Result, Results
from embedding_pipeline.defs.history import build_cost_history
from embedding_pipeline.defs.progress import ProgressLog
from embedding_pipeline.defs.rate_limits import rate_limits_told
from embedding_pipeline.defs.recording import (
    Built,
    Finished,
    each_handful,
    each_partition,
    recording,
)
from embedding_pipeline.defs.resources import (
    ConfigParam,
    EmbedderParam,
    EmbedderResource,
    SourceParam,
    StoreParam,
)
from embedding_pipeline.defs.writing import write_spaces, writing_of

if TYPE_CHECKING:
    from embedding_pipeline.service.work import Progress
    from embedding_pipeline.settings.tree import Settings

GROUP: Final = "embedding_pipeline"
OWNERS: Final = ("team:embedding_pipeline",)
FILES: Final = {"python", "parquet"}
DEDUPLICATION: Final = {
    "deduped_chunks": "One representative of every text of a day.",
    "duplicate_chunks": "The chunks left out, each with the representative that stands for it.",
}


async def raw_chunks(
    context: dg.AssetExecutionContext,
    settings: ConfigParam,
    chunk_source: SourceParam,
    vector_store: StoreParam,
) -> Result:
    """All chunks of a day as they arrived, with their tokens counted and their text hashed."""
    from embedding_pipeline.assembly.parts import build_counter
    from embedding_pipeline.pipeline.raw import build_raw_chunks

    counter = build_counter(settings)

    def build(day: str) -> Iterable[Finished]:
        report = build_raw_chunks(chunk_source, vector_store, counter, settings.chunking, day)
        return [metadata.raw_chunks(report, vector_store)]

    with recording(context) as recorder:
        await each_partition(recorder, in_thread(build))
    return recorder.result()


async def deduped_chunks(
    context: dg.AssetExecutionContext, settings: ConfigParam, vector_store: StoreParam
) -> Results:
    """The representatives of a day, and the chunks they stand for."""
    from embedding_pipeline.pipeline.dedupe import build_deduped_chunks

    price = settings.model_spec.nano_usd_per_token or 0
    first = settings.start_date.isoformat()

    def build(day: str) -> Iterable[Finished]:
        report = build_deduped_chunks(vector_store, settings.dedup, day)
        missing = tuple(other for other in report.missing_days if other >= first)
        report = replace(report, missing_days=missing)
        if missing:
            context.log.warning("%s: %s", day, metadata.not_looked_at(report))
        return metadata.deduped_chunks(report, price, vector_store)

    with recording(context) as recorder:
        await each_partition(recorder, in_thread(build))
    for result in recorder.results():
        yield result


async def embeddings(
    context: dg.AssetExecutionContext, openai: EmbedderParam, vector_store: StoreParam
) -> Result:
    """One vector for every representative: float32, unit norm, all of one space."""
    with recording(context) as recorder:
        async with rate_limits_told(recorder, openai):
            writing = await writing_of(context.run, openai, vector_store)
            progress = told_to(ProgressLog(context.log.info), openai)
            await write_spaces(recorder, writing, openai, vector_store, progress)
    return recorder.result()


async def cost_summary(
    context: dg.AssetExecutionContext, openai: EmbedderParam, vector_store: StoreParam
) -> Result:
    """What a day's vectors cost and saved, by project, user and where each came from."""
    from embedding_pipeline.pipeline.cost import build_cost_summaries
    from embedding_pipeline.pipeline.handfuls import handfuls

    with recording(context) as recorder:
        writing = await writing_of(context.run, openai, vector_store)
        async with openai.open(context.run.run_id, writing.main) as service:

            async def build(days: Sequence[str]) -> Mapping[str, Built]:
                made = await build_cost_summaries(service, vector_store, days)
                return await asyncio.to_thread(metadata.cost_summaries, made, vector_store)

            days = await handfuls(vector_store, context.partition_keys)
            await each_handful(recorder, build, days)
    return recorder.result()


def in_thread(build: Callable[[str], Iterable[Finished]]) -> Callable[[str], Any]:
    """A blocking build, done in a thread so that the run's loop stays free."""
    return lambda day: asyncio.to_thread(build, day)


def told_to(log: ProgressLog, openai: EmbedderResource) -> "Callable[[Progress], None]":
    """Progress goes to the run's log, and to whoever started the run if they asked."""

    def tell(progress: "Progress") -> None:
        log(progress)
        if openai.on_progress is not None:
            openai.on_progress(progress)

    return tell


def looked_at(scope_days: int) -> dg.PartitionMapping:
    """Of which days' raw chunks the copies of a day are: its own and some before it."""
    return dg.TimeWindowPartitionMapping(
        start_offset=-scope_days, allow_nonexistent_upstream_partitions=True
    )


def build_assets(
    days: dg.PartitionsDefinition[str], settings: "Settings"
) -> Sequence[dg.AssetsDefinition]:
    """The graph, in daily partitions; any range of them can be one run.

    The code versions say what in the settings shapes each asset: Dagster marks partitions
    that were made with other ones.
    """
    from embedding_pipeline.settings.recipe import fingerprint, recipe

    everywhere: dict[str, Any] = {"group_name": GROUP, "owners": OWNERS}
    common = {**everywhere, "partitions_def": days}
    most = settings.spaces.partitions_per_run
    policy = dg.BackfillPolicy.multi_run(most) if most else dg.BackfillPolicy.single_run()
    asset = partial(dg.asset, backfill_policy=policy, **common)
    made = recipe(settings)
    raw = dg.AssetDep("raw_chunks", partition_mapping=looked_at(settings.dedup.scope_days))
    specs = [
        dg.AssetSpec(
            name,
            deps=[raw],
            description=text,
            kinds=FILES,
            code_version=made.dedup,
            **common,
        )
        for name, text in DEDUPLICATION.items()
    ]
    family = {"python"} if settings.model_spec.is_local else {"openai"}
    return [
        asset(kinds=FILES, code_version=made.chunker)(raw_chunks),
        dg.multi_asset(specs=specs, can_subset=True, backfill_policy=policy)(deduped_chunks),
        asset(
            deps=["deduped_chunks"], kinds=family | {"parquet"}, code_version=fingerprint(settings)
        )(embeddings),
        asset(deps=["embeddings", "duplicate_chunks"], kinds=FILES)(cost_summary),
        build_cost_history(everywhere),
    ]
