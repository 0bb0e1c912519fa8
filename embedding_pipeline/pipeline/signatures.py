"""``signatures``: what is remembered of a day's chunks to find their copies.

Belongs here: keeping signatures in files, and making them anew when the chunks they were
made from are no longer those of the day. Does not belong here: what a signature is
(``dedup``).

A file says which chunks it was made from, by a digest of their ids, projects and hashes.
Whoever finds a file of other chunks, of another version, or a damaged one makes it anew;
it can be removed at any time. It holds no text.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import blake2b
from os import cpu_count
from typing import Final

import pyarrow as pa

from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.dedup.signing import COLUMNS, sign, signature_family, signature_schema
from embedding_pipeline.errors import DataError
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import OpenPartition, PartitionFile

_MADE_FROM: Final = "chunks"
_IDENTITY: Final = ("chunk_id", "project", "content_hash")
_THREADS: Final = min(4, cpu_count() or 1)
_WIDE: Final = 1 << 16


def signatures_of(datasets: Datasets, raw: OpenPartition, config: DedupConfig) -> pa.Table:
    """The signatures of the chunks in ``raw``, in their order, from their file or made anew.

    Memory holds the signatures: 16 bytes twice, 8 a band, and the id of each chunk.

    Raises DataError when ``raw`` is damaged or the disk does not take the file.
    """
    schema, chunks = signature_schema(config), chunks_digest(raw)
    file = datasets.signatures(signature_family(config), raw.file.day, schema)
    return _kept(file, chunks) or _made(file, raw, config, chunks)


def chunks_digest(raw: OpenPartition) -> str:
    """32 hex characters that tell the chunks of a day from any others, in their order."""
    hashers = {name: blake2b(digest_size=16) for name in _IDENTITY}
    for batch in raw.iter_batches(_IDENTITY, _WIDE):
        for name, hasher in hashers.items():
            hasher.update("\0".join([*batch.column(name).to_pylist(), ""]).encode())
    whole = blake2b(digest_size=16)
    for hasher in hashers.values():
        whole.update(hasher.digest())
    return whole.hexdigest()


def _kept(file: PartitionFile, chunks: str) -> pa.Table | None:
    """The signatures in ``file``, if they are of these chunks; None when they are not."""
    try:
        if not file.exists() or file.metadata().get(_MADE_FROM) != chunks:
            return None
        return pa.Table.from_batches(file.iter_batches(batch_rows=_WIDE), file.schema)
    except DataError:  # damaged, or removed meanwhile: it is only a memory of the chunks
        return None


def _made(file: PartitionFile, raw: OpenPartition, config: DedupConfig, chunks: str) -> pa.Table:
    made: list[pa.RecordBatch] = []
    with file.writer({_MADE_FROM: chunks}) as writer:
        for batch in _signed(raw, config):
            writer.write(batch)
            made.append(batch)
    return pa.Table.from_batches(made, file.schema)


def _signed(raw: OpenPartition, config: DedupConfig) -> Iterator[pa.RecordBatch]:
    """Batches signed by a few threads, in order, none read far ahead."""
    waiting: deque[Future[pa.RecordBatch]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="signing") as threads:
        for batch in raw.iter_batches(COLUMNS):
            waiting.append(threads.submit(sign, batch, config))
            if len(waiting) > _THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
