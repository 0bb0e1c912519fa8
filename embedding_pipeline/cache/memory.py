"""The memory tier: the vectors online callers asked for last, bounded by bytes.

Belongs here: one process's own tier. Backfills go past it, so that a scan over a
million chunks does not push out what a search page asks for every second.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embedding_pipeline.cache.tier import CacheTier, Lookup, nothing
from embedding_pipeline.records import Digest, Vectors


class MemoryTier(CacheTier):
    """Least recently used by bytes; thread-safe.

    Args:
        max_bytes: bytes of vectors it may hold.
        width: native dimensions.
    """

    name = "memory"

    def __init__(self, max_bytes: int, width: int) -> None:
        self.max_bytes = max_bytes
        self._width = width
        self._held = 0
        self._rows: OrderedDict[Digest, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: Digest) -> npt.NDArray[np.float32] | None:
        """The vector, shape ``(native_dimensions,)``, read-only; or None."""
        with self._lock:
            row = self._rows.get(digest)
            if row is not None:
                self._rows.move_to_end(digest)
            return row

    async def get_many(self, digests: Sequence[Digest]) -> Lookup:
        answer = nothing(len(digests), self._width)
        for position, digest in enumerate(digests):
            row = self.get(digest)
            if row is not None:
                answer.found[position], answer.vectors[position] = True, row
        return answer

    async def put_many(self, digests: Sequence[Digest], vectors: Vectors) -> None:
        self.put(digests, vectors)

    def put(self, digests: Sequence[Digest], vectors: Vectors) -> None:
        """Remember rows (copied), forgetting the least recently used beyond the bound."""
        with self._lock:
            for digest, vector in zip(digests, vectors, strict=True):
                self._put(digest, vector)

    def _put(self, digest: Digest, vector: npt.NDArray[np.float32]) -> None:
        if vector.nbytes > self.max_bytes:
            return
        old = self._rows.pop(digest, None)
        self._held -= old.nbytes if old is not None else 0
        row = vector.copy()
        row.flags.writeable = False
        self._rows[digest] = row
        self._held += row.nbytes
        while self._held > self.max_bytes:
            _, dropped = self._rows.popitem(last=False)
            self._held -= dropped.nbytes

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors held."""
        return self._held
