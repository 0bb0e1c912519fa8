"""Datasets made on the spot: ``deduped_chunks`` of one day, holding given texts."""

from collections.abc import Iterable, Sequence
from itertools import islice

import pyarrow as pa

from embedding_pipeline.records import RAW_CHUNKS, content_hash
from embedding_pipeline.tokens import default_counter
from embedding_pipeline.vectors.datasets import Datasets

BATCH = 1024


def chunk_batch(texts: Sequence[str], first: int = 0, project: str = "test") -> pa.RecordBatch:
    """Rows of ``raw_chunks`` for ``texts``; ids are eight digits, counted from ``first``."""
    names = [f"{first + i:08d}" for i in range(len(texts))]
    columns = {
        "chunk_id": names,
        "document_id": names,
        "ordinal": [0] * len(texts),
        "text": list(texts),
        "content_hash": [content_hash(text) for text in texts],
        "token_count": default_counter().count(texts),
        "project": [project] * len(texts),
        "user": [None] * len(texts),
        "metadata": ["{}"] * len(texts),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in RAW_CHUNKS]
    return pa.RecordBatch.from_arrays(arrays, schema=RAW_CHUNKS)


def write_deduped(datasets: Datasets, day: str, texts: Iterable[str]) -> None:
    """Make ``deduped_chunks`` of ``day``, streamed."""
    rest = iter(texts)
    with datasets.deduped_chunks(day).writer() as writer:
        while part := list(islice(rest, BATCH)):
            writer.write(chunk_batch(part, writer.rows))
