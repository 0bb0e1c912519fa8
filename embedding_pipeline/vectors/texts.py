"""Texts for chunks whose ids come as a stream.

Belongs here: joining texts to ids without holding a partition's texts.
"""

from collections.abc import Iterator

import pyarrow as pa

from embedding_pipeline.errors import DataError
from embedding_pipeline.vectors.partition import PartitionFile


class Texts:
    """Looks texts up by chunk id, one batch of the file in memory at a time.

    Asked in the order of the file, as readers do, it reads the file once; any other
    order is answered as well, only slower.
    """

    def __init__(self, chunks: PartitionFile) -> None:
        self._chunks = chunks
        self._stream: Iterator[pa.RecordBatch] = self._restart()
        self._current: pa.RecordBatch | None = None

    def of(self, ids: pa.Array) -> pa.Array:
        """The texts of ``ids``, in their order. Raises DataError when one has none."""
        names = ids.to_pylist()
        missing, known = set(names), dict[str, str]()
        batches = self._around()
        while missing:
            batch = next(batches, None)
            if batch is None:
                raise DataError(
                    f"{len(missing)} vectors, {min(missing)!r} for one, belong to no chunk "
                    f"of {self._chunks.location}; {self._chunks.remedy}"
                )
            known.update(_matching(batch, missing))
            missing.difference_update(known)
        return pa.array([known[name] for name in names], pa.string())

    def _around(self) -> Iterator[pa.RecordBatch]:
        """The batch at hand, those after it, then once more all from the start."""
        if self._current is not None:
            yield self._current
        for _ in range(2):
            for batch in self._stream:
                self._current = batch
                yield batch
            self._stream = self._restart()

    def _restart(self) -> Iterator[pa.RecordBatch]:
        return self._chunks.iter_batches(["chunk_id", "text"])


def _matching(batch: pa.RecordBatch, wanted: set[str]) -> Iterator[tuple[str, str]]:
    texts = batch.column("text")
    for row, name in enumerate(batch.column("chunk_id").to_pylist()):
        if name in wanted:
            yield name, texts[row].as_py()
