"""Small keys by which copies are recognised, so that no text is held to compare it.

Belongs here: normalising, digests, and gathering them from a stream of chunks. Does
not belong here: deciding who represents whom (``grouping``).
"""

import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

DIGEST_BYTES: Final = 16
"""n chunks collide with probability n² / 2¹²⁹: 1.5·10⁻²⁷ for a million."""

Digests: TypeAlias = npt.NDArray[np.uint64]
"""Digests as two 64-bit words each, shape ``(n, 2)``."""

COLUMNS: Final = ("chunk_id", "project", "text", "content_hash")
"""The columns of ``raw_chunks`` that keys are made from."""


def normalized(text: str) -> str:
    """``text`` without what does not make it another text: case, white space, Unicode form.

    NFC, then casefold, then NFC again (folding can leave decomposed characters), then
    every run of white space is one space and none is at the ends. Idempotent.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return " ".join(folded.split())


@dataclass(frozen=True)
class Keys:
    """What is remembered of ``n`` chunks: about 32 bytes each and their ids.

    Attributes:
        ids: chunk ids, an Arrow string array of length ``n``.
        normalized: digests of project and normalised text.
        exact: the first bytes of the sha256 of the exact text.
    """

    ids: pa.Array
    normalized: Digests
    exact: Digests


class KeyCollector:
    """Gathers the keys of chunks that come as a stream of record batches."""

    def __init__(self) -> None:
        self._ids: list[pa.Array] = []
        self._normalized = bytearray()
        self._exact = bytearray()

    def add(self, batch: pa.RecordBatch) -> None:
        """Take in a batch that has ``COLUMNS``; nothing of it is kept but ids."""
        columns = {name: batch.column(name).to_pylist() for name in COLUMNS}
        # a copy: the batch's own buffer would keep the whole batch alive
        self._ids.append(pa.array(columns["chunk_id"], pa.string()))
        for project, text in zip(columns["project"], columns["text"], strict=True):
            self._normalized += _digest(project, text)
        for name in columns["content_hash"]:
            self._exact += bytes.fromhex(name[: 2 * DIGEST_BYTES])

    def keys(self) -> Keys:
        """The keys of everything added, in the order it came."""
        ids = pa.chunked_array(self._ids, pa.string()).combine_chunks()
        return Keys(ids, _words(self._normalized), _words(self._exact))


def _digest(project: str, text: str) -> bytes:
    hasher = _hasher(project).copy()
    hasher.update(normalized(text).encode())
    return hasher.digest()


@lru_cache(maxsize=4096)
def _hasher(project: str) -> blake2b:
    """A digest begun with the project, its length first: no two pairs read the same."""
    name = project.encode()
    return blake2b(len(name).to_bytes(8) + name, digest_size=DIGEST_BYTES)


def _words(digests: bytearray) -> Digests:
    return np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)
