"""Keeping the durable tier within its bound while a service lives.

Belongs here: writing down what was read, and evicting in small steps. Does not belong
here: which group goes (``cache.eviction``).
"""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from embedding_pipeline.cache.database import find_space
from embedding_pipeline.cache.eviction import Policy, Step, evict_step
from embedding_pipeline.cache.groups import Uses, mark_used, total_bytes
from embedding_pipeline.cache.upkeep import sweep
from embedding_pipeline.spaces.in_use import in_use
from embedding_pipeline.state.store import Store

log = logging.getLogger(__name__)

MOST_STEPS: Final = 64
"""Steps at a time, about 2 GB: a service that closes does not stay for hours."""


@dataclass(frozen=True)
class Bound:
    """The size of the durable tier.

    Attributes:
        max_bytes: bytes of stored values, at most; None keeps everything.
        evict_active: vectors of the spaces in use may go as well.
    """

    max_bytes: int | None = None
    evict_active: bool = False


UNBOUNDED: Final = Bound()


class Keeper:
    """Holds the bound. One a service; concurrent ones of other processes are fine."""

    def __init__(self, store: Store, bound: Bound) -> None:
        self._store = store
        self._bound = bound
        self._policy = Policy(bound.max_bytes or 0)
        self._warned = False
        self.uses = Uses()

    def protect(self, in_use: Collection[int]) -> None:
        """Take nothing from these spaces, nor from any on record as in use.

        Unless the bound says that it may.
        """
        if not self._bound.evict_active:
            self._policy = replace(self._policy, keep=in_use)

    def write_down(self, connection: Connection, now_ms: int) -> None:
        """Mark what was read since the last time; in a transaction that happens anyway."""
        mark_used(connection, self.uses.take(now_ms), now_ms)

    async def tidy(self) -> int:
        """Evict down to the bound; returns how many vectors went.

        Raises:
            StateError: the store refused; what went before is gone.
        """
        most = self._bound.max_bytes
        if most is None or await self._store.read(total_bytes) <= most:
            return 0  # mostly so, and found out without the writer's lock
        gone = 0
        for _ in range(MOST_STEPS):
            step = await self._store.write(self._step)
            gone += step.entries
            if step.done:
                self._tell(step)
                break
        if gone:
            await sweep(self._store)
            log.info("%d vectors evicted from the cache", gone)
        return gone

    async def leave(self) -> None:
        """Evict for the last time, and remove what killed processes left in files.

        Raises:
            StateError: the store refused.
        """
        if not await self.tidy():
            await sweep(self._store)

    def _step(self, connection: Connection) -> Step:
        policy = self._policy
        if not self._bound.evict_active:
            found = (find_space(connection, space) for space in in_use(connection))
            others = [number for number in found if number is not None]
            policy = replace(policy, keep=[*policy.keep, *others])
        return evict_step(connection, policy)

    def _tell(self, step: Step) -> None:
        if step.surplus > 0 and not self._warned:
            self._warned = True
            log.warning(
                "the cache is %.1f MB over cache.max_gb, all of it vectors in use; raise the "
                "bound, set cache.evict_active, or run: embedding-pipeline cache evict",
                step.surplus / 1e6,
            )
