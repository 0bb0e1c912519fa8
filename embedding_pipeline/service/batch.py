"""One batch while its rows are being decided.

Belongs here: putting vectors into rows, and knowing when all rows are decided. No
waiting, no I/O. Does not belong here: where vectors come from (``bulk``).
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedding_pipeline.planning.inputs import NO_DIRECTION
from embedding_pipeline.records import Vectors
from embedding_pipeline.service.preparing import Prepared, whole
from embedding_pipeline.service.work import Deferral, FilledBatch, Refusal, Row, WorkBatch

Rows: TypeAlias = npt.NDArray[np.intp]


class OpenBatch:
    """A work batch, its keys, and the vectors that have come in so far.

    Attributes:
        work: the batch as it came.
        prepared: its keys; the position of a key is its index in ``prepared.items``.
        missing: rows still undecided.
    """

    def __init__(self, work: WorkBatch, prepared: Prepared, width: int) -> None:
        self.work = work
        self.prepared = prepared
        self.missing = len(work) - len(prepared.refused)
        self._rows: Rows = np.array(prepared.rows, np.intp)
        self._refused = dict(prepared.refused)
        self._deferred: dict[int, Deferral] = {}
        self._status = np.full(len(work), Row.OPEN, np.uint8)
        self._status[list(prepared.refused)] = Row.REFUSED
        # Left as it comes: most rows are written once, and refused ones at the end.
        self._vectors: Vectors = np.empty((len(work), width), np.float32)
        self._parts: dict[int, dict[int, npt.NDArray[np.float32] | None]] = {}
        self._bought: set[int] = set()  # derived rows that a part was paid for
        for position, row in enumerate(prepared.rows):
            if row in prepared.derived:
                self._parts.setdefault(row, {})[position] = None

    @property
    def done(self) -> bool:
        """Every row is decided."""
        return self.missing == 0

    def adopt(self, vectors: Vectors, found: npt.NDArray[np.bool_]) -> Rows:
        """Take what a lookup of all keys found (row ``i`` is key ``i``); the rows decided."""
        positions = np.flatnonzero(found)
        if not self._parts and len(positions) == len(self.work):
            self._vectors = vectors  # all there, in order: nothing to copy
            return self._decide(self._rows, Row.CACHED)
        return self.place(positions, vectors, positions, Row.CACHED)

    def place(
        self,
        positions: Sequence[int] | Rows,
        source: Vectors,
        indexes: Sequence[int] | Rows,
        status: Row,
    ) -> Rows:
        """Key ``positions[i]`` has the vector ``source[indexes[i]]``; the rows decided by it."""
        where, which = np.asarray(positions, np.intp), np.asarray(indexes, np.intp)
        if self._parts:
            return self._place_with_parts(where, source, which, status)
        return self._place_whole(where, source, which, status)

    def refuse(self, position: int, refusal: Refusal) -> Rows:
        """Key ``position`` has no vector, and so its row has none; the rows decided by it."""
        row = self.prepared.rows[position]
        if self._status[row] != Row.OPEN:
            return np.zeros(0, np.intp)
        self._refused[row] = refusal
        return self._decide(np.array([row], np.intp), Row.REFUSED)

    def defer(self, position: int, deferral: Deferral) -> Rows:
        """Key ``position`` is left for later, and so is its row; the rows decided by it."""
        row = self.prepared.rows[position]
        if self._status[row] != Row.OPEN:
            return np.zeros(0, np.intp)
        self._deferred[row] = deferral
        return self._decide(np.array([row], np.intp), Row.DEFERRED)

    def filled(self) -> FilledBatch:
        """The result; every row is decided."""
        self._vectors[[*self._refused, *self._deferred]] = 0
        return FilledBatch(
            self.work,
            self._vectors,
            self._status,
            self._refused,
            self.prepared.derived,
            self._deferred,
        )

    def _place_whole(self, where: Rows, source: Vectors, which: Rows, status: Row) -> Rows:
        rows = self._rows[where]
        if _consecutive(rows) and _consecutive(which):
            self._vectors[rows[0] : rows[-1] + 1] = source[which[0] : which[-1] + 1]
        elif len(rows):
            self._vectors[rows] = source[which]
        return self._decide(rows, status)

    def _place_with_parts(self, where: Rows, source: Vectors, which: Rows, status: Row) -> Rows:
        derived = np.isin(self._rows[where], list(self._parts))
        decided = [self._place_whole(where[~derived], source, which[~derived], status)]
        for position, index in zip(where[derived], which[derived], strict=True):
            decided.append(self._place_part(int(position), source[index], status))
        return np.concatenate(decided)

    def _place_part(self, position: int, vector: npt.NDArray[np.float32], status: Row) -> Rows:
        """Add one part to a derived row; the last one makes it whole."""
        row = self.prepared.rows[position]
        if status is Row.EMBEDDED:
            self._bought.add(row)
        parts = self._parts[row]
        parts[position] = vector
        if self._status[row] != Row.OPEN or any(part is None for part in parts.values()):
            return np.zeros(0, np.intp)
        try:
            self._vectors[row] = whole(self.prepared, parts)
        except ValueError:
            return self.refuse(position, Refusal(NO_DIRECTION))
        paid = row in self._bought
        return self._decide(np.array([row], np.intp), Row.EMBEDDED if paid else Row.CACHED)

    def _decide(self, rows: Rows, status: Row) -> Rows:
        self._status[rows] = status
        self.missing -= len(rows)
        return rows


def _consecutive(numbers: Rows) -> bool:
    return bool(len(numbers)) and bool((np.diff(numbers) == 1).all())
