"""One batch while its rows are being decided.

Belongs here: putting vectors into rows, and knowing when all rows are decided. No
waiting, no I/O. Does not belong here: where vectors come from (``bulk``).
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from embedding_pipeline.planning.inputs import NO_DIRECTION
from embedding_pipeline.records import Vectors
from embedding_pipeline.service.preparing import Prepared, whole
from embedding_pipeline.service.work import Deferral, FilledBatch, Refusal, Row, WorkBatch

Rows: TypeAlias = npt.NDArray[np.intp]

MOST_PIECES: Final = 64
"""Pieces of one batch that are handed on as they are; more are joined."""


class OpenBatch:
    """A work batch, its keys, and the vectors that have come in so far.

    Attributes:
        work: the batch as it came.
        prepared: its keys; the position of a key is its index in ``prepared.items``.
        first: the number of its first key in its run, which counts the keys of all batches.
        missing: rows still undecided.
    """

    def __init__(self, work: WorkBatch, prepared: Prepared, width: int) -> None:
        self.work = work
        self.prepared = prepared
        self.first = 0
        self.missing = len(work) - len(prepared.refused)
        self._rows: Rows = np.array(prepared.rows, np.intp)
        self._refused = dict(prepared.refused)
        self._deferred: dict[int, Deferral] = {}
        self._status = np.full(len(work), Row.OPEN, np.uint8)
        self._status[list(prepared.refused)] = Row.REFUSED
        self._width = width
        # What came in is kept, not copied: it mostly stands in the order of the rows.
        self._pieces: list[tuple[Rows, Vectors]] = []
        self._parts: dict[int, dict[int, npt.NDArray[np.float32] | None]] = {}
        self._bought: set[int] = set()  # derived rows that a part was paid for
        for position, row in enumerate(prepared.rows if prepared.derived else ()):
            if row in prepared.derived:
                self._parts.setdefault(row, {})[position] = None

    @property
    def done(self) -> bool:
        """Every row is decided."""
        return self.missing == 0

    def adopt(self, vectors: Vectors, found: npt.NDArray[np.bool_]) -> Rows:
        """Take what a lookup of all keys found (row ``i`` is key ``i``); the rows decided."""
        positions = np.flatnonzero(found)
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

    @property
    def refused(self) -> Mapping[int, Refusal]:
        """Rows refused so far, and why."""
        return self._refused

    def defer(self, position: int, deferral: Deferral) -> Rows:
        """Key ``position`` is left for later, and so is its row; the rows decided by it."""
        row = self.prepared.rows[position]
        if self._status[row] != Row.OPEN:
            return np.zeros(0, np.intp)
        self._deferred[row] = deferral
        return self._decide(np.array([row], np.intp), Row.DEFERRED)

    def filled(self) -> FilledBatch:
        """The result; every row is decided."""
        return FilledBatch(
            self.work,
            self._in_order() or (self._joined(),),
            self._status,
            self._refused,
            self.prepared.derived,
            self._deferred,
        )

    def _in_order(self) -> tuple[Vectors, ...]:
        """The pieces, if on top of each other they are the rows; else nothing."""
        pieces = sorted(self._pieces, key=lambda piece: int(piece[0][0]))
        end = 0
        for rows, _ in pieces:
            if rows[0] != end or not _consecutive(rows):
                return ()
            end += len(rows)
        whole = end == len(self.work) and len(pieces) <= MOST_PIECES
        return tuple(vectors for _, vectors in pieces) if whole else ()

    def _joined(self) -> Vectors:
        """One matrix; rows that no piece has are zero."""
        vectors: Vectors = np.zeros((len(self.work), self._width), np.float32)
        for rows, piece in self._pieces:
            vectors[rows] = piece
        return vectors

    def _place_whole(self, where: Rows, source: Vectors, which: Rows, status: Row) -> Rows:
        rows = self._rows[where]
        if len(rows):
            self._pieces.append((rows, _taken(source, which)))
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
            vector = whole(self.prepared, parts)
        except ValueError:
            return self.refuse(position, Refusal(NO_DIRECTION))
        self._pieces.append((np.array([row], np.intp), vector[None, :]))
        paid = row in self._bought
        return self._decide(np.array([row], np.intp), Row.EMBEDDED if paid else Row.CACHED)

    def _decide(self, rows: Rows, status: Row) -> Rows:
        self._status[rows] = status
        self.missing -= len(rows)
        return rows


def _taken(source: Vectors, which: Rows) -> Vectors:
    """Some rows of ``source``: a view where it holds most of it, so that little lies idle."""
    if not _consecutive(which):
        return source[which]
    taken = source[which[0] : which[-1] + 1]
    return taken if 2 * len(taken) >= len(source) else taken.copy()


def _consecutive(numbers: Rows) -> bool:
    return bool(len(numbers)) and bool((np.diff(numbers) == 1).all())
