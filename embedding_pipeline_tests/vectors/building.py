"""Small partitions for tests, written through the real writers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from embedding_pipeline.records import (
    DUPLICATE_CHUNKS,
    RAW_CHUNKS,
    Space,
    Vectors,
    content_hash,
    digest_of,
)
from embedding_pipeline.vectors.columns import embeddings_batch
from embedding_pipeline.vectors.datasets import Datasets

DAY = "2025-03-18"
NEXT = "2025-03-19"
SPACE = Space("local", "tiny", "", 8)
OTHER = Space("local", "other", "", 8)


@dataclass(frozen=True)
class Chunk:
    """One raw chunk, as far as these tests care."""

    chunk_id: str
    text: str
    project: str = "p"


@dataclass(frozen=True)
class Copy:
    """One row of ``duplicate_chunks``."""

    chunk_id: str
    representative_id: str
    method: str = "exact"
    date: str = DAY


def vector_of(text: str, dimensions: int = SPACE.native_dimensions) -> Vectors:
    """A unit vector that is a function of the text."""
    seed = int.from_bytes(digest_of(text)[:8])
    vector = np.random.default_rng(seed).standard_normal(dimensions).astype(np.float32)
    shaped: Vectors = vector / np.linalg.norm(vector)
    return shaped


def vectors_of(texts: Sequence[str], dimensions: int = SPACE.native_dimensions) -> Vectors:
    rows = [vector_of(text, dimensions) for text in texts]
    return np.array(rows, np.float32).reshape(len(texts), dimensions)


def chunk_batch(chunks: Sequence[Chunk]) -> pa.RecordBatch:
    rows = [
        {
            "chunk_id": chunk.chunk_id,
            "document_id": f"doc-{chunk.chunk_id}",
            "ordinal": 0,
            "text": chunk.text,
            "content_hash": content_hash(chunk.text),
            "token_count": len(chunk.text.split()),
            "project": chunk.project,
            "user": None,
            "metadata": "{}",
        }
        for chunk in chunks
    ]
    return pa.RecordBatch.from_pylist(rows, schema=RAW_CHUNKS)


def write_raw(datasets: Datasets, day: str, chunks: Sequence[Chunk]) -> None:
    with datasets.raw_chunks(day).writer() as writer:
        writer.write(chunk_batch(chunks))


def write_deduped(
    datasets: Datasets, day: str, chunks: Sequence[Chunk], copies: Iterable[Copy] = ()
) -> None:
    with datasets.deduped_chunks(day).writer() as writer:
        writer.write(chunk_batch(chunks))
    rows = [
        {
            "chunk_id": copy.chunk_id,
            "representative_id": copy.representative_id,
            "representative_date": copy.date,
            "method": copy.method,
            "similarity": 1.0,
        }
        for copy in copies
    ]
    with datasets.duplicate_chunks(day).writer() as writer:
        writer.write(pa.RecordBatch.from_pylist(rows, schema=DUPLICATE_CHUNKS))


def write_embeddings(
    datasets: Datasets,
    day: str,
    chunks: Sequence[Chunk],
    *,
    space: Space = SPACE,
    vectors: Vectors | None = None,
    batch_rows: int = 1000,
) -> None:
    matrix = vectors_of([chunk.text for chunk in chunks]) if vectors is None else vectors
    dimensions = matrix.shape[1]
    file = datasets.embeddings(space, day, dimensions)
    with file.vectors_writer(run_id="run", fingerprint="print") as writer:
        for start in range(0, len(chunks), batch_rows):
            stop = start + batch_rows
            writer.write(embeddings_batch(chunk_batch(chunks[start:stop]), matrix[start:stop]))


def write_day(
    datasets: Datasets, day: str, chunks: Sequence[Chunk], copies: Sequence[Copy] = ()
) -> None:
    """A whole day in good order: every chunk that is not a copy has its vector."""
    listed = {copy.chunk_id for copy in copies}
    representatives = [chunk for chunk in chunks if chunk.chunk_id not in listed]
    write_raw(datasets, day, chunks)
    write_deduped(datasets, day, representatives, copies)
    write_embeddings(datasets, day, representatives)
