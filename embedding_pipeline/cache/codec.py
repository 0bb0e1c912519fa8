"""A vector as bytes, and back only if every bit is as it was.

Layout, little-endian: version u8, dtype u8, dimensions u16, crc32 u32, payload. The
checksum covers the header before it, the key (space and digest) and the payload: an
entry that was damaged, or stands under another key, does not decode. Compression is
left out on purpose: it saves 7-13 % of float32 embeddings at 10-100 times the CPU.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from embedding_pipeline.records import Digest, Space, Vectors

VERSION: Final = 1
_HEADER: Final = struct.Struct("<BBHI")
_PREFIX: Final = struct.Struct("<BBH")
_DTYPES: Final[dict[int, np.dtype[np.floating[Any]]]] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f2"),
}
_CODES: Final = {"float32": 1, "float16": 2}

Value: TypeAlias = bytes | memoryview
"""An entry; read-only."""

OVERHEAD: Final = _HEADER.size
"""Bytes an entry has beyond its components."""


def encode(
    space: Space, digests: Sequence[Digest], vectors: Vectors, dtype: str = "float32"
) -> list[memoryview]:
    """One entry a row of ``vectors`` (shape ``(n, native_dimensions)``), all in one buffer."""
    if not len(digests):
        return []
    code = _CODES[dtype]
    prefix = _PREFIX.pack(VERSION, code, vectors.shape[1])
    seed = zlib.crc32(str(space).encode(), zlib.crc32(prefix))
    width = OVERHEAD + vectors.shape[1] * _DTYPES[code].itemsize
    buffer = np.empty((len(digests), width), np.uint8)
    buffer[:, : _PREFIX.size] = np.frombuffer(prefix, np.uint8)
    buffer[:, OVERHEAD:].view(_DTYPES[code])[:] = vectors
    whole = buffer.data.cast("B")
    entries = [whole[start : start + width] for start in range(0, len(whole), width)]
    checks = [
        zlib.crc32(entry[OVERHEAD:], zlib.crc32(digest, seed))
        for entry, digest in zip(entries, digests, strict=True)
    ]
    buffer[:, _PREFIX.size : OVERHEAD].view("<u4")[:, 0] = checks
    return entries


def decode_into(
    out: Vectors, rows: Sequence[int], space: Space, entries: Iterable[tuple[Digest, Value]]
) -> list[int]:
    """Decode entries into ``out[rows[i]]``; return the positions ``i`` that are damaged.

    Args:
        out: float32, shape ``(n, native_dimensions)``.
        rows: for each entry the row of ``out`` it belongs to.
        space: the space the entries must be of.
        entries: ``(digest, value)`` pairs.
    """
    seeds: dict[bytes, int] = {}
    name = str(space).encode()
    damaged = []
    for position, (row, (digest, value)) in enumerate(zip(rows, entries, strict=True)):
        prefix = bytes(value[: _PREFIX.size])
        seed = seeds.get(prefix)
        if seed is None:
            seed = seeds[prefix] = zlib.crc32(name, zlib.crc32(prefix))
        vector = _payload(digest, value, seed, out.shape[1])
        if vector is None:
            damaged.append(position)
        else:
            out[row] = vector
    return damaged


def _payload(
    digest: Digest, value: Value, seed: int, dimensions: int
) -> npt.NDArray[np.floating[Any]] | None:
    """The components, or None where anything is not as it was written."""
    if len(value) < OVERHEAD:
        return None
    version, code, dims, check = _HEADER.unpack_from(value)
    dtype = _DTYPES.get(code)
    if version != VERSION or dtype is None or dims != dimensions:
        return None
    body = memoryview(value)[OVERHEAD:]
    if len(body) != dims * dtype.itemsize or zlib.crc32(body, zlib.crc32(digest, seed)) != check:
        return None
    return np.frombuffer(body, dtype=dtype)
