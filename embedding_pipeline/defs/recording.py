"""Writing a step's partitions into Dagster's books, one event a partition.

Belongs here: when a partition counts as materialized, and what happens to the
finished ones when a later one fails. Does not belong here: what is said of a
partition (``metadata``), or the work itself.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import dagster as dg

from embedding_pipeline.defs.collector import sparing_the_old
from embedding_pipeline.defs.compat import Result
from embedding_pipeline.defs.failures import (
    PARTITION_ERRORS,
    again_when_away,
    blaming,
    told_plainly,
)
from embedding_pipeline.defs.orphans import claim
from embedding_pipeline.defs.stopping import until_stopped
from embedding_pipeline.errors import EmbeddingPipelineError

Metadata: TypeAlias = Mapping[str, dg.MetadataValue]


@dataclass(frozen=True)
class Finished:
    """A partition of an asset that is whole and in place.

    Attributes:
        asset: name of the asset.
        partition: the day.
        metadata: what the UI shows of it.
        tags: provenance, by which a later version can tell what it was made from.
    """

    asset: str
    partition: str
    metadata: Metadata
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> dg.AssetKey:
        """The asset as Dagster names it."""
        return dg.AssetKey(self.asset)

    def event(self) -> dg.AssetMaterialization:
        """The materialization, for when Dagster does not write it by itself."""
        return dg.AssetMaterialization(
            self.key, partition=self.partition, metadata=dict(self.metadata), tags=dict(self.tags)
        )


Built: TypeAlias = Iterable[Finished] | EmbeddingPipelineError
"""What came of building a partition: what is whole now, or what is wrong with its data."""


class Recorder:
    """Collects the finished partitions of one step until it ends, well or not."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self.context: Final = context
        self._finished: list[Finished] = []

    def finished(self, *partitions: Finished) -> None:
        """These partitions are whole."""
        self._finished.extend(partitions)

    def also(self, metadata: Metadata) -> None:
        """Say this of every partition that is whole by now."""
        self._finished = [
            replace(one, metadata={**one.metadata, **metadata}) for one in self._finished
        ]

    def annotate(self) -> None:
        """All is well: Dagster writes one event a partition, and this goes into it.

        An asset that was made but not asked for gets its event from us.
        """
        for one in self._finished:
            if one.key in self.context.selected_asset_keys:
                self.context.add_asset_metadata(one.metadata, one.key, one.partition)
            else:
                self.context.log_event(one.event())

    def salvage(self) -> None:
        """The step failed, Dagster writes nothing: what was whole by then is materialized."""
        for one in self._finished:
            self.context.log_event(one.event())

    def results(self) -> Iterator[Result]:
        """One result for each asset that was asked for."""
        tags = {one.key: dict(one.tags) for one in self._finished}
        for asset, its_tags in tags.items():
            if asset in self.context.selected_asset_keys:
                yield dg.MaterializeResult(asset_key=asset, tags=its_tags)

    def result(self) -> Result:
        """The one result of a step that makes one asset."""
        return next(self.results())


@contextmanager
def recording(context: dg.AssetExecutionContext) -> Iterator[Recorder]:
    """Around the work of a step: whatever is finished in it is recorded, however it ends.

    The run's process is on record from here on: should it die, it is not waited for.

    Raises dagster.Failure where the work raises an error of ours, and dagster.RetryRequested
    where that may pass.
    """
    recorder = Recorder(context)
    try:
        with told_plainly(), again_when_away(context), sparing_the_old():
            claim(context.instance, context.run)
            yield recorder
    except BaseException:
        recorder.salvage()
        raise
    recorder.annotate()


async def each_partition(
    recorder: Recorder, build: Callable[[str], Awaitable[Iterable[Finished]]]
) -> None:
    """Build the run's partitions one after another; a bad one does not stop the others.

    Raises dagster.Failure that names the partitions that failed, once all were tried.
    Errors that no partition is to blame for (settings, store, provider) end it at once.
    """

    async def attempt(partitions: Sequence[str]) -> Mapping[str, Built]:
        try:
            return {partitions[0]: await build(partitions[0])}
        except PARTITION_ERRORS as error:
            return {partitions[0]: error}

    await each_handful(recorder, attempt, [[one] for one in recorder.context.partition_keys])


async def each_handful(
    recorder: Recorder,
    build: Callable[[Sequence[str]], Awaitable[Mapping[str, Built]]],
    handfuls: Iterable[Sequence[str]],
) -> None:
    """``each_partition`` for a build that takes several, and says of each what came of it."""
    failed: dict[str, EmbeddingPipelineError] = {}
    for partitions in handfuls:
        for partition, built in (await until_stopped(build(partitions))).items():
            if isinstance(built, EmbeddingPipelineError):
                recorder.context.log.error("%s: %s", partition, built)
                failed[partition] = built
            else:
                recorder.finished(*built)
    if failed:
        raise blaming(dict(sorted(failed.items()))) from next(iter(failed.values()))
