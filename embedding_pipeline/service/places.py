"""Where the vectors of a run go: from a key to the rows of the batches that wait for it.

Belongs here: the batches that are open, in order, and which of their keys are still out.
Does not belong here: fetching, counting, or what a batch does with a vector (``batch``).

A place is one integer: keys are numbered through all batches of a run. Lists are made for
keys that come twice only, so that the collector finds no object a text to look at.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from embedding_pipeline.records import Digest
from embedding_pipeline.service.batch import OpenBatch, Rows

Place: TypeAlias = tuple[OpenBatch, int]
"""A batch, and the position of a key in it."""

Landed: TypeAlias = tuple[bool, OpenBatch, Rows, Rows]
"""Whether these are the first places of their keys, the batch, the positions in it, and
which of the vectors go there."""


class Places:
    """The open batches of one run, first in first out."""

    def __init__(self) -> None:
        self.open: deque[OpenBatch] = deque()
        self._first: dict[Digest, int] = {}
        self._more: dict[Digest, list[int]] = {}
        self._keys = 0

    def add(self, batch: OpenBatch) -> None:
        """Take in a batch; its keys are numbered on from the last one's."""
        batch.first, self._keys = self._keys, self._keys + len(batch.prepared.items)
        self.open.append(batch)

    def expect(self, digest: Digest, batch: OpenBatch, position: int) -> bool:
        """A key of an open batch waits for its vector; True when it is the first to."""
        number = batch.first + position
        if digest in self._first:
            self._more.setdefault(digest, []).append(number)
            return False
        self._first[digest] = number
        return True

    def expect_all(self, batch: OpenBatch) -> bool:
        """All keys of a batch wait, each of them the first to; False, and none does, if not so."""
        items = batch.prepared.items
        numbers = range(batch.first, batch.first + len(items))
        new = dict(zip([item.digest for item in items], numbers, strict=True))
        if len(new) < len(items) or not self._first.keys().isdisjoint(new):
            return False
        self._first.update(new)
        return True

    def take(self, digest: Digest) -> list[Place]:
        """All places of a key, the first first; none of them waits any more."""
        first = self._first.pop(digest, None)
        numbers = [] if first is None else [first, *self._more.pop(digest, ())]
        return [
            (batch, position)
            for number in numbers
            for batch, positions, _ in self._by_batch(np.array([number], np.intp))
            for position in positions.tolist()
        ]

    def land(self, digests: Sequence[Digest]) -> Iterator[Landed]:
        """Where vectors of ``digests`` go; none of their places waits any more."""
        first = np.array([self._first.pop(digest, -1) for digest in digests], np.intp)
        for batch, positions, rows in self._by_batch(first):
            yield True, batch, positions, rows
        more = [
            (number, row)
            for row, digest in enumerate(digests if self._more else ())
            for number in self._more.pop(digest, ())
        ]
        numbers, rows = np.array(more, np.intp).reshape(-1, 2).T
        for batch, positions, which in self._by_batch(numbers):
            yield False, batch, positions, rows[which]

    def _by_batch(self, numbers: Rows) -> Iterator[tuple[OpenBatch, Rows, Rows]]:
        """A batch can leave before its last key has come: with one part of a text refused."""
        turns = np.searchsorted([batch.first for batch in self.open], numbers, "right") - 1
        for turn in np.unique(turns[turns >= 0]).tolist():
            mine = np.flatnonzero(turns == turn)
            yield self.open[turn], numbers[mine] - self.open[turn].first, mine


def payer_of(place: Place) -> tuple[str, str]:
    """Project and user that pay for the text at this place."""
    batch, position = place
    account = batch.prepared.items[position].account
    return account.project, account.user
