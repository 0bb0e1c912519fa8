"""A vector as bytes, and back only if every bit is as it was.

Layout, little-endian: version u8, dtype u8, dimensions u16, crc32 u32, payload. The
checksum covers the header before it, the key (space and digest) and the payload: an
entry that was damaged, or stands under another key, does not decode. Compression is
left out on purpose: it saves 7-13 % of float32 embeddings at 10-100 times the CPU. The
checksum is zlib's, made by ISA-L in a fifth of the time.

Where the payload lies in a file (``apart``), the entry is a reference: version 2, the same
header, and the payload's offset, u64. The checksum covers the same as before.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from isal.isal_zlib import crc32

from embedding_pipeline.records import Digest, Space, Vectors

VERSION: Final = 1
REFERENCE: Final = 2
_HEADER: Final = struct.Struct("<BBHI")
_PREFIX: Final = struct.Struct("<BBH")
_DTYPES: Final[dict[int, np.dtype[np.floating[Any]]]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f2"),
}
_CODES: Final = {"float32": 1, "float16": 2}

Value: TypeAlias = bytes | bytearray | memoryview
"""An entry; not to be changed."""

Payload: TypeAlias = npt.NDArray[np.floating[Any]]
"""Components as they are stored, C-contiguous, shape ``(n, native_dimensions)``."""

OVERHEAD: Final = _HEADER.size
"""Bytes an entry has beyond its components."""

PREFIX: Final = _PREFIX.size
"""Bytes at the beginning of an entry that say what it is (``size_of``)."""

_MOST_OFFSET: Final = 1 << 40
"""Farther than any file reaches; file systems refuse what is far beyond."""

_REFERENCE: Final = np.dtype([("prefix", "<u4"), ("check", "<u4"), ("offset", "<u8")])


def encode(
    space: Space, digests: Sequence[Digest], vectors: Vectors, dtype: str = "float32"
) -> list[memoryview]:
    """One entry a row of ``vectors`` (shape ``(n, native_dimensions)``), all in one buffer."""
    if not len(digests):
        return []
    code = _CODES[dtype]
    prefix = _PREFIX.pack(VERSION, code, vectors.shape[1])
    width = OVERHEAD + vectors.shape[1] * _DTYPES[code].itemsize
    buffer = np.empty((len(digests), width), np.uint8)
    buffer[:, :PREFIX] = np.frombuffer(prefix, np.uint8)
    buffer[:, OVERHEAD:].view(_DTYPES[code])[:] = vectors
    whole = buffer.data.cast("B")
    buffer[:, PREFIX:OVERHEAD].view("<u4")[:, 0] = _checks(whole, OVERHEAD, prefix, space, digests)
    return [whole[start : start + width] for start in range(0, len(whole), width)]


def payload_of(vectors: Vectors, dtype: str) -> Payload:
    """``vectors`` as they are stored apart from their entries; a copy only where need be."""
    return np.ascontiguousarray(vectors, _DTYPES[_CODES[dtype]])


def refer(space: Space, digests: Sequence[Digest], rows: Payload, offset: int) -> list[bytearray]:
    """One reference a row of ``rows``, the first of which begins at ``offset``.

    As ``bytearray``, which SQLite's driver takes with the least CPU (``state.statements.blobs``).
    """
    prefix = _PREFIX.pack(REFERENCE, _CODES[rows.dtype.name], rows.shape[1])
    made = np.empty(len(rows), _REFERENCE)
    made["prefix"] = int.from_bytes(prefix, "little")
    made["check"] = _checks(rows.data.cast("B"), 0, prefix, space, digests)
    made["offset"] = offset + np.arange(len(rows)) * rows.strides[0]
    whole, size = bytearray(made.tobytes()), made.itemsize
    return [whole[start : start + size] for start in range(0, len(whole), size)]


def is_reference(value: Value) -> bool:
    """Whether this entry only says where its components are."""
    return len(value) == _REFERENCE.itemsize and value[0] == REFERENCE


def size_of(prefix: Value, length: int) -> int:
    """Bytes that an entry takes, its payload's included, by its beginning and its length."""
    if length != _REFERENCE.itemsize or prefix[0] != REFERENCE:
        return length
    _, code, dimensions = _PREFIX.unpack_from(prefix)
    return length + int(dimensions) * (_DTYPES[code].itemsize if code in _DTYPES else 0)


@dataclass(frozen=True)
class Located:
    """References to rows of one type.

    Attributes:
        positions: which of the entries these are.
        offsets: where each row begins.
        dtype: of its components.
    """

    positions: npt.NDArray[np.intp]
    offsets: npt.NDArray[np.int64]
    dtype: np.dtype[np.floating[Any]]
    _checks: npt.NDArray[np.uint32]
    _prefix: bytes

    def right(
        self,
        some: npt.NDArray[np.intp],
        rows: Payload,
        space: Space,
        digests: Sequence[Digest],
    ) -> npt.NDArray[np.bool_]:
        """Which of ``rows``, read for the references ``some`` and their keys, are as written."""
        made = _checks(rows.data.cast("B"), 0, self._prefix, space, digests)
        same: npt.NDArray[np.bool_] = self._checks[some] == made
        return same


def locate(values: Sequence[Value], dimensions: int) -> Iterator[Located]:
    """The references among entries, by type; those of another shape are damaged, and left out."""
    entries = np.frombuffer(b"".join(values), _REFERENCE)
    for code, dtype in _DTYPES.items():
        prefix = _PREFIX.pack(REFERENCE, code, dimensions)
        same = entries["prefix"] == int.from_bytes(prefix, "little")
        some = np.flatnonzero(same & (entries["offset"] < _MOST_OFFSET))
        found = entries[some]
        if len(some):
            yield Located(some, found["offset"].astype(np.int64), dtype, found["check"], prefix)


def decode_into(
    out: Vectors,
    rows: Sequence[int] | npt.NDArray[np.intp],
    space: Space,
    digests: Sequence[Digest],
    values: Sequence[Value],
) -> list[int]:
    """Decode entries into ``out[rows[i]]``; return the positions ``i`` that are damaged.

    Args:
        out: float32, shape ``(n, native_dimensions)``.
        rows: for each entry the row of ``out`` it belongs to, each once.
        space: the space the entries must be of.
        digests: for each entry its key.
        values: the entries.
    """
    targets = np.asarray(rows, np.intp)
    lengths = np.array(list(map(len, values)), np.intp)
    good = np.zeros(len(values), np.bool_)
    for code, dtype in _DTYPES.items():
        layout = _layout(out.shape[1], dtype)
        some = np.flatnonzero(lengths == layout.itemsize)
        if not len(some):
            continue
        if len(some) < len(values):
            few = some.tolist()
            keys, whole = [digests[i] for i in few], b"".join([values[i] for i in few])
        else:
            keys, whole = list(digests), b"".join(values)
        records = np.frombuffer(whole, layout)
        right = _right(records, keys, space, code)
        if right.all():
            out[targets[some]] = records["vector"]
        else:
            out[targets[some[right]]] = records["vector"][right]
        good[some] = right
    return [int(position) for position in np.flatnonzero(~good)]


@cache
def _layout(dimensions: int, dtype: np.dtype[np.floating[Any]]) -> np.dtype[np.void]:
    fields = [("prefix", "<u4"), ("check", "<u4"), ("vector", dtype, (dimensions,))]
    return np.dtype(fields)


def _right(
    records: npt.NDArray[np.void], digests: Sequence[Digest], space: Space, code: int
) -> npt.NDArray[np.bool_]:
    """Which of the entries are as they were written, under their key."""
    prefix = _PREFIX.pack(VERSION, code, records.dtype["vector"].shape[0])
    checks = _checks(records.data.cast("B"), OVERHEAD, prefix, space, digests)
    same = records["prefix"] == int.from_bytes(prefix, "little")
    right: npt.NDArray[np.bool_] = same & (records["check"] == checks)
    return right


def _checks(
    rows: memoryview, skip: int, prefix: bytes, space: Space, digests: Sequence[Digest]
) -> npt.NDArray[np.uint32]:
    """The checksum of each row, of which the first ``skip`` bytes do not count."""
    seed = crc32(str(space).encode(), crc32(prefix))
    size = len(rows) // max(len(digests), 1)
    checks = [
        crc32(rows[start + skip : start + size], crc32(digest, seed))
        for start, digest in zip(range(0, len(rows), size or 1), digests, strict=True)
    ]
    return np.array(checks, np.uint32)
