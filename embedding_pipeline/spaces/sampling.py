"""The same chunks out of two spaces, for the gate.

Belongs here: choosing chunks evenly over all days, and aligning them. Does not belong
here: judging them (``gate``).
"""

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.records import Space, Vectors
from embedding_pipeline.spaces.gate import Rows, Sample
from embedding_pipeline.spaces.records import Target
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.view import view

_COLUMNS = ("chunk_id", "content_hash", "document_id")


def draw(
    datasets: Datasets,
    days: Sequence[str],
    old: Target | None,
    new: Target,
    size: int,
    randomness: random.Random,
) -> Sample:
    """At most ``size`` chunks that both spaces have, evenly over ``days``. Blocking.

    Memory holds the sample, and the ids of one day. Raises DataError.
    """
    parts = [
        part
        for day, share in zip(days, _shares(datasets, days, new.space, size), strict=True)
        if (part := _day(datasets, day, old, new, share, randomness)) is not None
    ]
    ids = pa.concat_tables([ids for ids, _, _ in parts]) if parts else None
    return Sample(
        old=None if old is None else _stack([was for _, was, _ in parts], old.dimensions),
        new=_stack([now for _, _, now in parts], new.dimensions),
        texts=_numbers(ids, "content_hash"),
        documents=_numbers(ids, "document_id"),
    )


def _shares(datasets: Datasets, days: Sequence[str], space: Space, size: int) -> list[int]:
    """How many chunks each day gives, by its part of all."""
    rows = [datasets.stored_embeddings(space, day).rows() for day in days]
    total = sum(rows)
    ends = np.cumsum([0, *rows]) * min(1.0, size / total if total else 0.0)
    return [int(n) for n in np.diff(np.round(ends))]


_Part = tuple[pa.Table, Vectors, Vectors]


def _day(
    datasets: Datasets,
    day: str,
    old: Target | None,
    new: Target,
    share: int,
    randomness: random.Random,
) -> _Part | None:
    if not share:
        return None
    ids = _ids(datasets, new.space, day)
    if old is not None:
        there = pa.array(sorted(_ids(datasets, old.space, day)["chunk_id"].to_pylist()))
        ids = ids.filter(pc.is_in(ids["chunk_id"], value_set=there))
    chosen = randomness.sample(range(ids.num_rows), min(share, ids.num_rows))
    ids = ids.take(pa.array(sorted(chosen), pa.int64()))
    if not ids.num_rows:
        return None
    now = _vectors(datasets, day, new, ids["chunk_id"])
    return ids, now if old is None else _vectors(datasets, day, old, ids["chunk_id"]), now


def _ids(datasets: Datasets, space: Space, day: str) -> pa.Table:
    batches = list(datasets.stored_embeddings(space, day).iter_batches(_COLUMNS))
    schema = pa.schema([(name, pa.string()) for name in _COLUMNS])
    return pa.Table.from_batches(batches, schema)


def _vectors(datasets: Datasets, day: str, target: Target, ids: pa.ChunkedArray) -> Vectors:
    """The vectors of ``ids`` in their order, as the target's view."""
    file = datasets.stored_embeddings(target.space, day)
    with file.open() as opened:
        found = opened.find("chunk_id", ids.combine_chunks(), ["chunk_id", "vector"])
    order = pc.index_in(ids, value_set=found["chunk_id"].combine_chunks())
    vectors: Vectors = view(matrix_of(found["vector"].combine_chunks()), target.dimensions)
    aligned: Vectors = vectors[order.to_numpy()]
    return aligned


def _stack(parts: Sequence[Vectors], dimensions: int) -> Vectors:
    return np.vstack(parts) if parts else np.zeros((0, dimensions), np.float32)


def _numbers(ids: pa.Table | None, column: str) -> Rows:
    if ids is None:
        return np.zeros(0, np.int64)
    codes = ids[column].combine_chunks().dictionary_encode().indices
    numbers: Rows = codes.to_numpy().astype(np.int64)
    return numbers
