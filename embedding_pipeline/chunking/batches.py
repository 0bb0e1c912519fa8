"""One partition's chunks as Arrow batches, everything counted and named.

Belongs here: from what a source delivers to rows of ``RAW_CHUNKS``, in bounded
memory. Does not belong here: reading sources, writing files.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from embedding_pipeline.chunking.config import ChunkingConfig
from embedding_pipeline.chunking.splitting import Splitter
from embedding_pipeline.records import RAW_CHUNKS, Document, Rejected, Row, content_hash
from embedding_pipeline.tokens import TokenCounter

MAX_BATCH_CHARS: Final = 2**24
"""Characters after which a batch is full, however few rows it has."""


@dataclass(frozen=True)
class ChunkBatch:
    """A stretch of a partition.

    Attributes:
        chunks: a RecordBatch of ``RAW_CHUNKS``, in the order of the source; may be empty.
        rejected: what could not be used in this stretch.
        items: rows, documents and rejected ones read for this stretch.
    """

    chunks: pa.RecordBatch
    rejected: tuple[Rejected, ...]
    items: int


def chunk_partition(
    items: Iterable[Row | Document | Rejected],
    config: ChunkingConfig,
    counter: TokenCounter,
    *,
    batch_rows: int = 1024,
) -> Iterator[ChunkBatch]:
    """Split what has to be split, and gather chunks into batches.

    A ``Row`` is kept as it is, however long. A ``Document`` is split into chunks named
    ``<document_id>#<ordinal>``, four digits at least.

    Args:
        items: what a source delivers for one day.
        config: how documents are split.
        counter: what counts tokens; once a batch.
        batch_rows: chunks, or rejected rows, in a batch. Very long texts fill one sooner.
    """
    splitter = Splitter(config, counter)
    gathered = _Gathered()
    for item in items:
        gathered.items += 1
        if isinstance(item, Rejected):
            gathered.rejected.append(item)
        for piece in _pieces(item, splitter):
            gathered.add(piece)
            if gathered.is_full(batch_rows):
                yield gathered.take(counter)
        if gathered.is_full(batch_rows):
            yield gathered.take(counter)
    if gathered.items or gathered.pieces:
        yield gathered.take(counter)


@dataclass(frozen=True, slots=True)
class _Piece:
    chunk_id: str
    document_id: str
    ordinal: int
    text: str
    project: str
    user: str | None
    metadata: str


def _pieces(item: Row | Document | Rejected, splitter: Splitter) -> Iterator[_Piece]:
    if isinstance(item, Rejected):
        return
    metadata = _json(item.metadata)
    for chunk_id, ordinal, text in _numbered(item, splitter):
        yield _Piece(chunk_id, item.document_id, ordinal, text, item.project, item.user, metadata)


def _numbered(item: Row | Document, splitter: Splitter) -> Iterator[tuple[str, int, str]]:
    if isinstance(item, Row):
        yield item.row_id, item.ordinal, item.text
        return
    for ordinal, text in enumerate(splitter.split(item.text, item.markup)):
        yield f"{item.document_id}#{ordinal:04d}", ordinal, text


def _json(metadata: Mapping[str, object]) -> str:
    """As ASCII: a lone surrogate somewhere in it must not take the batch down."""
    return json.dumps(dict(metadata), separators=(",", ":"))


@dataclass
class _Gathered:
    """The batch that is being filled."""

    pieces: list[_Piece] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    items: int = 0
    chars: int = 0

    def add(self, piece: _Piece) -> None:
        self.pieces.append(piece)
        self.chars += len(piece.text)

    def is_full(self, rows: int) -> bool:
        return max(len(self.pieces), len(self.rejected)) >= rows or self.chars >= MAX_BATCH_CHARS

    def take(self, counter: TokenCounter) -> ChunkBatch:
        batch = ChunkBatch(_record_batch(self.pieces, counter), tuple(self.rejected), self.items)
        self.pieces, self.rejected, self.items, self.chars = [], [], 0, 0
        return batch


def _record_batch(pieces: list[_Piece], counter: TokenCounter) -> pa.RecordBatch:
    texts = [piece.text for piece in pieces]
    return pa.RecordBatch.from_pydict(
        {
            "chunk_id": [piece.chunk_id for piece in pieces],
            "document_id": [piece.document_id for piece in pieces],
            "ordinal": [piece.ordinal for piece in pieces],
            "text": texts,
            "content_hash": [content_hash(text) for text in texts],
            "token_count": counter.count(texts),
            "project": [piece.project for piece in pieces],
            "user": [piece.user for piece in pieces],
            "metadata": [piece.metadata for piece in pieces],
        },
        schema=RAW_CHUNKS,
    )
