"""The tiers on top of each other: the nearest is asked first, the durable one decides.

Belongs here: the order of asking, filling upward, and what each tier had. Does not belong
here: a tier, or buying what none has (``service``).

A tier above the durable one saves reading a value, never the question whether it was paid
for: what the durable tier does not know is not served, so that the books hold, and what
was evicted or purged is gone on every machine at once.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from embedding_pipeline.cache.durable import DurableTier
from embedding_pipeline.cache.tier import CacheTier, Lookup
from embedding_pipeline.records import Digest, Vectors


@dataclass(frozen=True)
class Answer:
    """What one tier was asked for and had.

    Attributes:
        tier: its name.
        positions: the keys it was asked for, by their position.
        found: for each of them whether it had it, and the durable tier knew it.
        damaged: how many of those not found were damaged.
    """

    tier: str
    positions: npt.NDArray[np.intp]
    found: npt.NDArray[np.bool_]
    damaged: int


log = logging.getLogger(__name__)


class Stack:
    """Tiers over the durable one.

    Args:
        near: the nearest first; none of them fails (``Guarded``).
        durable: asked for what they have not.
    """

    def __init__(self, near: Sequence[CacheTier], durable: DurableTier) -> None:
        self._opened = self._near = tuple(near)
        self._durable = durable

    def under(self, nearest: CacheTier) -> "Stack":
        """The same tiers below one more."""
        return Stack((nearest, *self._near), self._durable)

    async def get_many(self, digests: Sequence[Digest]) -> tuple[Lookup, Sequence[Answer]]:
        """Look keys up; repeated ones are answered at every position.

        Returns:
            What was found, and what each tier that was asked had. ``damaged`` of the whole
            is of the durable tier.

        Raises:
            StateError: the durable tier cannot be read.
        """
        if not self._near:
            found = await self._durable.get_many(digests)
            everything = np.arange(len(digests))
            return found, [_answer(self._durable.name, everything, found)]
        merged = _Merged(digests, self._durable.space.native_dimensions)
        for tier in self._near:
            if len(merged.open):
                merged.add(tier.name, await tier.get_many(merged.missing()))
        durable = await self._settle(merged)
        if durable is None:
            return await self.get_many(digests)
        await self._fill(merged)
        return Lookup(merged.found, merged.vectors, durable.damaged), merged.answers

    async def put_many(self, digests: Sequence[Digest], vectors: Vectors) -> None:
        """Tell the tiers above the durable one, which has them, of new vectors."""
        for tier in self._near:
            await tier.put_many(digests, vectors)

    async def aclose(self) -> None:
        """Close the tiers above the durable one."""
        for tier in self._opened:
            await tier.aclose()

    async def _settle(self, merged: "_Merged") -> Lookup | None:
        """The durable tier's word on what was found, and its own finds.

        None when the other tiers speak of a store that was purged since: they are left out
        from then on.
        """
        held = merged.present()
        there, found = await self._durable.confirm(held, merged.missing())
        if there is None:
            log.warning("the cache was purged: only its database is used until the next start")
            self._near = ()
            return None
        merged.add(self._durable.name, found)
        unknown = {*held} - there
        if unknown:
            merged.withdraw(unknown)
        return found

    async def _fill(self, merged: "_Merged") -> None:
        """What a tier had is told to those nearer than it."""
        for depth, tier in enumerate(self._near):
            new = merged.found_below(depth)
            if len(new):
                await tier.put_many([merged.digests[i] for i in new], merged.vectors[new])


class _Merged:
    """The answers of several tiers to one question, as they come in.

    Attributes:
        open: positions nobody had so far, ascending.
        by: for each key which tier had it, by its turn; -1 for none.
    """

    def __init__(self, digests: Sequence[Digest], width: int) -> None:
        self.digests = digests
        self.width = width
        self.found = np.zeros(len(digests), np.bool_)
        self.vectors: Vectors = np.zeros((0, width), np.float32)
        self.open = np.arange(len(digests))
        self.by = np.full(len(digests), -1)
        self.answers: list[Answer] = []

    def missing(self) -> Sequence[Digest]:
        if len(self.open) == len(self.digests):
            return self.digests
        return [self.digests[i] for i in self.open.tolist()]

    def present(self) -> list[Digest]:
        return [self.digests[i] for i in np.flatnonzero(self.found).tolist()]

    def add(self, tier: str, answer: Lookup) -> None:
        positions = self.open
        self.answers.append(_answer(tier, positions, answer))
        if len(positions) == len(self.digests):
            self.vectors = answer.vectors  # nothing of another tier to keep
        else:
            self.vectors[positions] = answer.vectors
        had = positions[answer.found]
        self.found[had] = True
        self.by[had] = len(self.answers) - 1
        self.open = positions[~answer.found]

    def withdraw(self, unknown: set[Digest]) -> None:
        """Take back what the durable tier does not know: nobody had it."""
        gone = np.array([digest in unknown for digest in self.digests], np.bool_)
        self.found[gone] = False
        self.by[gone] = -1
        self.vectors[gone] = 0
        for answer in self.answers:
            answer.found[gone[answer.positions]] = False
        last = self.answers[-1]
        asked = np.append(last.positions, np.flatnonzero(gone))
        found = np.append(last.found, np.zeros(int(gone.sum()), np.bool_))
        self.answers[-1] = replace(last, positions=asked, found=found)

    def found_below(self, depth: int) -> npt.NDArray[np.intp]:
        return np.flatnonzero(self.by > depth)


def _answer(tier: str, positions: npt.NDArray[np.intp], answer: Lookup) -> Answer:
    return Answer(tier, positions, answer.found.copy(), len(answer.damaged))
