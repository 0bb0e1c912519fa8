"""What every tier of the cache can do.

Belongs here: the interface of the tiers above the durable one, and what any tier answers.
Does not belong here: a tier, or the order they are asked in (``stack``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedding_pipeline.records import Digest, Vectors


@dataclass(frozen=True)
class Lookup:
    """What a tier knows of a sequence of keys.

    Attributes:
        found: which keys have a vector, shape ``(n,)``.
        vectors: float32, shape ``(n, native_dimensions)``; rows not found are zero.
            Perhaps read-only.
        damaged: keys whose entry did not decode. They count as not found, and the next
            write of their key repairs them (the durable tier's have to be forgotten first).
        entries: the ledger entries that paid for what was found; of the durable tier only.
    """

    found: npt.NDArray[np.bool_]
    vectors: Vectors
    damaged: tuple[Digest, ...] = ()
    entries: frozenset[int] = frozenset()


def nothing(keys: int, width: int) -> Lookup:
    """The answer of a tier that has none of so many keys."""
    return Lookup(np.zeros(keys, np.bool_), np.zeros((keys, width), np.float32))


class CacheTier(ABC):
    """A tier above the durable one: quicker, and allowed to forget anything at any time.

    Holds full vectors of one space. Concurrent calls in one event loop are fine.
    """

    name: str
    """What statistics and logs call it."""

    @abstractmethod
    async def get_many(self, digests: Sequence[Digest]) -> Lookup:
        """Look keys up; repeated ones are answered at every position.

        Raises:
            StateError: the tier cannot be reached.
        """

    @abstractmethod
    async def put_many(self, digests: Sequence[Digest], vectors: Vectors) -> None:
        """Keep ``vectors[i]`` for ``digests[i]``, in place of what is there.

        Raises:
            StateError: the tier cannot be reached, or takes nothing.
        """

    async def aclose(self) -> None:
        """Give back what was opened. Safe to call twice."""


NearTiers: TypeAlias = Callable[[str], Sequence[CacheTier]]
"""Given the store's identity, the shared tiers above the durable one, nearest first."""


def no_tiers(_identity: str) -> Sequence[CacheTier]:
    """Nothing above the durable tier."""
    return ()
