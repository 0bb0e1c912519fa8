"""Vectors of another model that stand in for those an outage has delayed.

Belongs here: making them for one day, and removing them once the real ones are there. Does
not belong here: leaving chunks for later (``service``), or reading (``vectors.reader``).

They are a dataset of their own, in the space of their own model: no reader meets one that
did not ask for it. At every moment a chunk of the day has its real vector, its stand-in, or
both: the file first gains the new stand-ins, then the real vectors are replaced, and only
then the old ones go.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.errors import DataError, InputRefused
from embedding_pipeline.ledger.deferred import OUTAGE
from embedding_pipeline.records import Vectors
from embedding_pipeline.service.aside import Aside
from embedding_pipeline.service.finishing import finish
from embedding_pipeline.service.work import FilledBatch
from embedding_pipeline.vectors.columns import embeddings_batch
from embedding_pipeline.vectors.datasets import Datasets, EmbeddingsFile, VectorsWriter

AT_ONCE: Final = 256
"""Texts the model is handed at a time."""


class StandIns:
    """What makes stand-ins in a run.

    Args:
        embedder: the model that stands in; None makes none, and removes those there are.
        datasets: where they go.
    """

    def __init__(self, embedder: Embedder | None, datasets: Datasets) -> None:
        self.embedder = embedder
        self.datasets = datasets

    def of_day(self, partition: str, aside: Aside, run_id: str) -> "StandInDay":
        """Those of one day, while its vectors are being written."""
        return StandInDay(self.embedder, self.datasets, partition, aside, run_id)


class StandInDay:
    """The stand-ins of one day: ``add`` each batch, ``publish``, and at last ``settle``."""

    def __init__(
        self,
        embedder: Embedder | None,
        datasets: Datasets,
        partition: str,
        aside: Aside,
        run_id: str,
    ) -> None:
        self._embedder = embedder
        self._datasets = datasets
        self._partition = partition
        self._aside = aside
        self._run_id = run_id
        self._stack = ExitStack()
        self._writer: VectorsWriter | None = None
        self._ids: set[str] = set()
        self._old_kept = False

    async def add(self, batch: FilledBatch) -> None:
        """Make the stand-ins of what an outage left undone in a batch.

        A text that the model refuses has none.
        """
        rows = [row for row, why in batch.deferred.items() if why.reason == OUTAGE]
        if self._embedder is None or not rows:
            return
        if self._writer is None:
            self._writer = await self._aside.run(self._open)
        writer = self._writer
        for start in range(0, len(rows), AT_ONCE):
            part = rows[start : start + AT_ONCE]
            kept, vectors = await _embed(self._embedder, [batch.work.texts[row] for row in part])
            if not kept:
                continue
            chunks = batch.work.payload
            assert isinstance(chunks, pa.RecordBatch)
            made = embeddings_batch(chunks.take([part[i] for i in kept]), vectors)
            self._ids.update(made.column("chunk_id").to_pylist())
            await finish(self._aside.run(writer.write, made))

    async def publish(self) -> None:
        """Before the real vectors are replaced: the new ones, and the old ones still."""
        if self._writer is not None:
            await finish(self._aside.run(self._publish, self._writer))

    async def settle(self) -> None:
        """Once they are: only those that are needed."""
        await finish(self._aside.run(self._settle))

    @property
    def count(self) -> int:
        """How many were made in this pass."""
        return len(self._ids)

    def abandon(self, exc: BaseException) -> None:
        """Leave the old file as it is."""
        self._stack.__exit__(type(exc), exc, exc.__traceback__)

    @property
    def _file(self) -> EmbeddingsFile:
        assert self._embedder is not None
        return self._datasets.stand_ins(self._embedder.space, self._partition)

    def _open(self) -> VectorsWriter:
        return self._stack.enter_context(
            self._file.vectors_writer(run_id=self._run_id, fingerprint="")
        )

    def _publish(self, writer: VectorsWriter) -> None:
        for batch in _batches(self._file):
            old = batch.filter(pc.invert(self._among(batch)))
            if old.num_rows:
                writer.write(old)
                self._old_kept = True
        self._stack.close()

    def _settle(self) -> None:
        keep = self._file.name if self._ids else None
        for file in self._datasets.stand_in_files(self._partition):
            if file.name != keep:
                file.remove()
        if not self._old_kept:
            return
        with self._file.vectors_writer(run_id=self._run_id, fingerprint="") as writer:
            for batch in self._file.iter_batches():
                writer.write(batch.filter(self._among(batch)))

    def _among(self, batch: pa.RecordBatch) -> pa.BooleanArray:
        """Which rows are of this pass."""
        return pc.is_in(batch.column("chunk_id"), value_set=pa.array(sorted(self._ids)))


def _batches(file: EmbeddingsFile) -> Sequence[pa.RecordBatch]:
    """What an earlier pass left; a damaged file is worth nothing, it is made anew."""
    try:
        return list(file.iter_batches()) if file.exists() else []
    except DataError:
        return []


async def _embed(embedder: Embedder, texts: Sequence[str]) -> tuple[list[int], Vectors]:
    """The vectors of the texts the model takes, and which those are."""
    kept = list(range(len(texts)))
    while kept:
        try:
            result = await embedder.embed([texts[i] for i in kept])
            return kept, result.vectors
        except InputRefused as error:
            index = error.fault.input_index
            if index is None:
                break
            del kept[index]
    return [], np.zeros((0, embedder.space.native_dimensions), np.float32)
