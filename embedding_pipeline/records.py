"""The words of the domain, as types: spaces, keys, results, and the Arrow schemas.

Belongs here: small frozen values that several rooms exchange, and the schemas of
the datasets under ``data_dir`` (they are a public contract). Does not belong
here: behaviour, reading or writing anything.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, NewType, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Vectors: TypeAlias = npt.NDArray[np.float32]
"""A float32 matrix, one row a text: shape ``(n, dimensions)``."""

NanoUSD = NewType("NanoUSD", int)
"""Money: an integer number of 10⁻⁹ US dollars."""

Digest = NewType("Digest", bytes)
"""The 32 raw bytes of a text's sha256."""


def digest_of(text: str) -> Digest:
    """sha256 of the exact text as UTF-8. Raises UnicodeEncodeError on lone surrogates."""
    return Digest(hashlib.sha256(text.encode()).digest())


def digest_and_size(text: str) -> tuple[Digest, int]:
    """``digest_of``, and the text's length in UTF-8 bytes, for one encoding."""
    raw = text.encode()
    return Digest(hashlib.sha256(raw).digest()), len(raw)


def content_hash(text: str) -> str:
    """The digest as 64 lower-case hex characters, as stored in the datasets."""
    return digest_of(text).hex()


_SPACE: Final = re.compile(
    r"(?P<family>[a-z0-9-]+)/(?P<model>[^@#\s]+)(#(?P<revision>[^@#\s]+))?@(?P<dims>[1-9]\d*)"
)


@dataclass(frozen=True, order=True)
class Space:
    """What makes vectors comparable. Two models are never one space.

    Attributes:
        family: provider family (``openai`` for OpenAI and Azure alike, ``local``).
        model: the model's name within the family.
        revision: weights hash or version where the model has one, else ``""``.
        native_dimensions: length of the full vector. Smaller ones are views of it.
    """

    family: str
    model: str
    revision: str
    native_dimensions: int

    def __str__(self) -> str:
        revision = f"#{self.revision}" if self.revision else ""
        return f"{self.family}/{self.model}{revision}@{self.native_dimensions}"

    @property
    def slug(self) -> str:
        """The name as one folder name: lower case, no separator, no surprises."""
        return re.sub(r"[^a-z0-9.]+", "-", str(self).lower()).strip("-.")

    @classmethod
    def parse(cls, name: str) -> Self:
        """The inverse of ``str(space)``. Raises ValueError."""
        match = _SPACE.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is not a space (family/model[#revision]@dimensions)")
        return cls(match["family"], match["model"], match["revision"] or "", int(match["dims"]))


@dataclass(frozen=True)
class VectorKey:
    """The name of a vector: what made it, and from which exact text."""

    space: Space
    digest: Digest


class Priority(StrEnum):
    """Who goes first when requests compete."""

    URGENT = "urgent"
    NORMAL = "normal"
    BULK = "bulk"


class Kind(StrEnum):
    """Where a vector came from; ``source`` in ``cost_summary``.

    ``import`` is only in the ledger: for a summary such a vector was in the cache.
    """

    API = "api"
    BATCH_API = "batch_api"
    CACHE = "cache"
    DUPLICATE = "duplicate"
    DERIVED = "derived"
    LOCAL = "local"
    IMPORT = "import"


@dataclass(frozen=True)
class Account:
    """For whom work is done: the ledger's dimensions.

    Attributes:
        project: the tenant that pays.
        user: a person or service within the project, or "".
        partition: the daily partition the work belongs to, or "" for online callers.
    """

    project: str
    user: str = ""
    partition: str = ""


@dataclass(frozen=True)
class Usage:
    """What one or more replies were billed for, in tokens."""

    input_tokens: int


@dataclass(frozen=True)
class Attempt:
    """One call to a provider that did not deliver, for the books and the metadata.

    Attributes:
        provider: name of the provider.
        error: name of the error class.
        code: the provider's code or the HTTP status as text, or "".
        waited_seconds: how long the caller then waited before the next attempt.
        maybe_billed: it may have been charged though nothing usable arrived.
    """

    provider: str
    error: str
    code: str = ""
    waited_seconds: float = 0.0
    maybe_billed: bool = False


@dataclass(frozen=True)
class EmbeddingResult:
    """What an embedder delivers for a sequence of texts.

    Attributes:
        vectors: float32, shape ``(len(texts), space.native_dimensions)``, unit norm,
            row ``i`` made from text ``i``.
        usage: tokens billed for the delivering request.
        provider: who delivered.
        requests: calls made, failed ones included.
        attempts: the calls that failed before this one delivered.
        rate_headers: what the reply said about rate limits, as it came.
        limited_seconds: time spent waiting for permits of our own rate limit.
        model: what the provider calls the model that answered; "" where it does not say.
    """

    vectors: Vectors
    usage: Usage
    provider: str
    requests: int = 1
    attempts: Sequence[Attempt] = field(default=())
    rate_headers: Mapping[str, str] = field(default_factory=dict)
    limited_seconds: float = 0.0
    model: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A chunk as a source delivers it: already cut, not yet counted.

    Attributes:
        row_id: the chunk's id, unique within its day.
        document_id: the document it belongs to.
        ordinal: its position within the document, 0 where the source does not say.
        text: the exact text to embed; never blank, always encodable as UTF-8.
        project: the tenant that pays.
        user: a person or service within the project, or None.
        metadata: everything else the source knows, ready for JSON.
        location: where it stood, for a person: file and line, or the like.
    """

    row_id: str
    document_id: str
    ordinal: int
    text: str
    project: str
    user: str | None
    metadata: Mapping[str, object]
    location: str


@dataclass(frozen=True, slots=True)
class Document:
    """A whole document as a source delivers it: still to be split.

    The attributes mean what they mean for ``Row``; ``markup`` says how its structure
    is written.
    """

    document_id: str
    text: str
    project: str
    user: str | None
    metadata: Mapping[str, object]
    location: str
    markup: Literal["text", "markdown"]


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something a source could not use: kept aside, counted, and named.

    Attributes:
        location: where it stood: file and line, or the like.
        row_id: its id if that could be read, else "".
        reason: one stable word, such as ``no_text`` or ``bad_json``.
        content: the beginning of what stood there, undecodable bytes replaced.
    """

    location: str
    row_id: str
    reason: str
    content: str


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns.items()])


RAW_CHUNKS: Final = _schema(
    chunk_id=pa.string(),
    document_id=pa.string(),
    ordinal=pa.int32(),
    text=pa.string(),
    content_hash=pa.string(),
    token_count=pa.int32(),
    project=pa.string(),
    user=pa.string(),
    metadata=pa.string(),
)
"""``raw_chunks/<date>.parquet`` and ``deduped_chunks/<date>.parquet``; user may be null."""

DUPLICATE_CHUNKS: Final = _schema(
    chunk_id=pa.string(),
    representative_id=pa.string(),
    representative_date=pa.string(),
    method=pa.string(),
    similarity=pa.float32(),
)

REJECTED_ROWS: Final = _schema(
    location=pa.string(),
    row_id=pa.string(),
    reason=pa.string(),
    content=pa.string(),
)
"""``rejected_rows/<date>.parquet``: rows kept aside, where they stood and why."""

DERIVED_CHUNKS: Final = _schema(
    chunk_id=pa.string(),
    method=pa.string(),
    parts=pa.int32(),
)
"""``derived_chunks/<space slug>/<date>.parquet``: chunks whose vector was not made from
exactly their text; method is ``truncated`` or ``split_mean``."""

COST_SUMMARY: Final = _schema(
    project=pa.string(),
    user=pa.string(),
    space=pa.string(),
    source=pa.string(),
    chunks=pa.int64(),
    input_tokens=pa.int64(),
    cost_nano_usd=pa.int64(),
    saved_nano_usd=pa.int64(),
    requests=pa.int64(),
    wait_seconds=pa.float64(),
)


def embeddings_schema(dimensions: int) -> pa.Schema:
    """Schema of ``embeddings/<space slug>/<date>.parquet`` at these dimensions."""
    return _schema(
        chunk_id=pa.string(),
        document_id=pa.string(),
        project=pa.string(),
        content_hash=pa.string(),
        vector=pa.list_(pa.field("element", pa.float32(), nullable=False), dimensions),
    )


MEANINGS: Final = {
    "chunk_id": "The chunk's own id, unique within its day.",
    "document_id": "The document that the chunk is a part of.",
    "ordinal": "The chunk's place in its document, from 0.",
    "text": "What is embedded, exactly as it is.",
    "content_hash": "SHA-256 of the text, in hex: with the space, the key of its vector.",
    "token_count": "Tokens of the text as the model counts them.",
    "project": "Who pays: budgets, shares of the rate limit and costs go by project.",
    "user": "On whose behalf; may be empty.",
    "metadata": "All other fields of the source's row, as JSON.",
    "representative_id": "The chunk whose vector stands for this one.",
    "representative_date": "The day that the representative belongs to.",
    "method": "How the copy was found: exact, normalized or near.",
    "similarity": "Jaccard similarity of the two texts' shingles; 1 for exact copies.",
    "vector": "Float32, of unit norm, in the space that the file names.",
    "space": "Family, model, revision and native dimensions: only vectors of one space compare.",
    "source": "Where the vectors came from: api, batch_api, cache, duplicate, derived or local.",
    "chunks": "How many chunks.",
    "input_tokens": "Tokens that their texts hold.",
    "cost_nano_usd": "What they cost, in billionths of a dollar.",
    "saved_nano_usd": "What was not paid for them, in billionths of a dollar.",
    "requests": "Requests that brought them.",
    "wait_seconds": "Seconds that those requests waited for the rate limit.",
}
"""What the columns of the datasets say, for people."""
