"""Which spaces a run writes, and writing them one after the other.

Belongs here: what a run's tags mean for its spaces, and that a failure in one space does
not keep the active one from readers. Does not belong here: the rules (``spaces.choosing``).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import dagster as dg

from embedding_pipeline.defs import metadata
from embedding_pipeline.defs.orphans import BUILD_TAG
from embedding_pipeline.defs.recording import Recorder
from embedding_pipeline.defs.resources import EmbedderResource
from embedding_pipeline.defs.stopping import until_stopped
from embedding_pipeline.errors import DataError, EmbeddingPipelineError

if TYPE_CHECKING:
    from embedding_pipeline.pipeline.reports import EmbedReport
    from embedding_pipeline.service.work import Deferral, Progress
    from embedding_pipeline.spaces.choosing import Writing
    from embedding_pipeline.spaces.records import Target
    from embedding_pipeline.vectors.datasets import Datasets


async def writing_of(
    run: dg.DagsterRun, openai: EmbedderResource, datasets: "Datasets"
) -> "Writing":
    """The spaces of a run, from its tags, the settings and the store.

    Raises DataError when the run belongs to a build that is over; nothing is spent then.
    """
    from embedding_pipeline.assembly.parts import open_store
    from embedding_pipeline.assembly.spaces import begin_writing
    from embedding_pipeline.clock import SystemClock

    now_ms = int(SystemClock().now() * 1000)
    with open_store(openai.settings) as store:
        writing = await begin_writing(
            openai.settings, store, datasets, run.tags.get(BUILD_TAG), now_ms
        )
    if writing.superseded:
        raise DataError(
            "the build of a space that this run was for is over or was cancelled; nothing was "
            "spent. Look with: embedding-pipeline spaces list"
        )
    return writing


async def write_spaces(
    recorder: Recorder,
    writing: "Writing",
    openai: EmbedderResource,
    datasets: "Datasets",
    on_progress: "Callable[[Progress], None]",
) -> None:
    """Embed the run's partitions in each of its spaces, the main one last.

    Raises what went wrong in another space, once the main one is whole.
    """
    failure: EmbeddingPipelineError | None = None
    beside = _Beside(recorder, datasets)
    for target in writing.targets[:-1]:
        try:
            await _write(recorder.context, target, openai, datasets, on_progress, beside.add)
        except EmbeddingPipelineError as error:
            recorder.context.log.error("%s, beside the active space: %s", target, error)
            failure = failure or (None if target in writing.optional else error)
    main = writing.main
    told = beside.materialized
    await _write(recorder.context, main, openai, datasets, on_progress, told, main=True)
    if failure is not None:
        raise failure


async def _write(
    context: dg.AssetExecutionContext,
    target: "Target",
    openai: EmbedderResource,
    datasets: "Datasets",
    on_progress: "Callable[[Progress], None]",
    on_partition: "Callable[[EmbedReport], None]",
    *,
    main: bool = False,
) -> None:
    from embedding_pipeline.assembly.stand_ins import open_stand_ins
    from embedding_pipeline.pipeline.embed import build_embeddings
    from embedding_pipeline.records import Priority

    hold = await _send_ahead(context, target, openai, datasets)
    async with (
        openai.open(context.run.run_id, target) as service,
        open_stand_ins(openai.settings, datasets) as stand_ins,
    ):
        await until_stopped(
            build_embeddings(
                service,
                datasets,
                context.partition_keys,
                on_partition=on_partition,
                on_progress=on_progress,
                priority=Priority.BULK if BUILD_TAG in context.run.tags else Priority.NORMAL,
                stand_ins=stand_ins if main else None,
                hold=hold,
            )
        )


async def _send_ahead(
    context: dg.AssetExecutionContext,
    target: "Target",
    openai: EmbedderResource,
    datasets: "Datasets",
) -> "Deferral | None":
    """Where ``batch_api`` says so, what is missing goes into batches and not into requests.

    Returns why the run is to leave everything that is missing for later, if it is.
    """
    if openai.settings.batch_api.mode == "off":
        return None
    from embedding_pipeline.assembly.batching import send_days
    from embedding_pipeline.assembly.spaces import settings_for

    settings = settings_for(openai.settings, target)
    days, run_key = context.partition_keys, context.run.run_id
    sent = await until_stopped(send_days(settings, datasets, days, run_key))
    if sent is None:
        return None
    context.log.info("%s: %s", target, sent)
    return sent.hold


class _Beside:
    """What was written beside the main space; it is told with the main one's partitions."""

    def __init__(self, recorder: Recorder, datasets: "Datasets") -> None:
        self._recorder = recorder
        self._datasets = datasets
        self._reports: list[EmbedReport] = []

    def add(self, report: "EmbedReport") -> None:
        self._reports.append(report)

    def materialized(self, report: "EmbedReport") -> None:
        """A day is whole in the main space."""
        finished = metadata.embeddings(report, self._datasets)
        others = [other for other in self._reports if other.partition == report.partition]
        if others:
            finished = replace(finished, metadata={**finished.metadata, **_also(others)})
        self._recorder.finished(finished)


def _also(reports: "list[EmbedReport]") -> Mapping[str, dg.MetadataValue]:
    figures = {
        report.space: {
            "dimensions": report.dimensions,
            "embedded": report.embedded,
            "cached": report.cached,
            "cost_usd": report.cost_nano_usd / 1e9,
        }
        for report in reports
    }
    return {"also_embedded_in": dg.MetadataValue.json(figures)}
