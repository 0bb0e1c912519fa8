"""The representatives of a day, made or not: what embedding would be handed.

Belongs here: choosing between the datasets that are there and a scratch copy of the steps
before them. Does not belong here: any step itself, or what is done with the chunks.

What is missing is made by the very steps a run would take, in a temporary folder that goes
away again: the answer is the run's, memory stays bounded, and ``data_dir`` is untouched.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from embedding_pipeline.chunking.config import ChunkingConfig
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
from embedding_pipeline.pipeline.raw import build_raw_chunks
from embedding_pipeline.sources.base import ChunkSource
from embedding_pipeline.tokens import TokenCounter
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import PartitionFile


class Scratch(Datasets):
    """Datasets in a folder of their own; ``raw_chunks`` that were made already are shared."""

    def __init__(self, folder: Path, made: Datasets) -> None:
        super().__init__(folder)
        self._folder = folder
        self._made = made

    def raw_chunks(self, day: str) -> PartitionFile:
        """The day's chunks: those that were made, else the scratch copy. Only read the first."""
        made = self._made.raw_chunks(day)
        return made if made.exists() else super().raw_chunks(day)

    def forget(self, day: str) -> None:
        """Remove what was made here of a day."""
        for path in self._folder.glob(f"**/{day}.parquet"):
            path.unlink()


class Representatives:
    """Streams the representatives of days, in any state of their datasets. Blocking.

    Use it as a context manager, and ask for days in ascending order: with
    ``dedup.scope_days`` a day needs those before it.
    """

    def __init__(
        self,
        datasets: Datasets,
        source: ChunkSource,
        counter: TokenCounter,
        chunking: ChunkingConfig,
        dedup: DedupConfig,
    ) -> None:
        self._made = datasets
        self._source = source
        self._counter = counter
        self._chunking = chunking
        self._dedup = dedup
        self._closing = ExitStack()
        self._held: list[str] = []

    def __enter__(self) -> Self:
        folder = tempfile.TemporaryDirectory(prefix="embedding_pipeline_plan_")
        self._scratch = Scratch(Path(self._closing.enter_context(folder)), self._made)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing.close()

    def of(self, day: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The representatives of a day, streamed. Raises DataError and SourceError."""
        made = self._made.deduped_chunks(day)
        if not made.exists():
            self._make(day)
            made = self._scratch.deduped_chunks(day)
        yield from made.iter_batches(columns)

    def raw(self, day: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All chunks of a day that ``of`` was asked for; its representatives if no more is there.

        Raises DataError.
        """
        chunks = self._scratch.raw_chunks(day)
        file = chunks if chunks.exists() else self._made.deduped_chunks(day)
        yield from file.iter_batches(columns)

    def _make(self, day: str) -> None:
        """The steps before ``embeddings``, in the scratch folder."""
        self._let_go(day)
        if not self._scratch.raw_chunks(day).exists():
            build_raw_chunks(self._source, self._scratch, self._counter, self._chunking, day)
        build_deduped_chunks(self._scratch, self._dedup, day)
        self._held.append(day)

    def _let_go(self, day: str) -> None:
        """Days that no later one looks back to are not kept."""
        oldest = (date.fromisoformat(day) - timedelta(days=self._dedup.scope_days)).isoformat()
        for gone in [held for held in self._held if held < oldest]:
            self._scratch.forget(gone)
            self._held.remove(gone)
