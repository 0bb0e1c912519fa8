"""A service's sign of life in the shared store, and what is written along with it.

Belongs here: taking, renewing and ending the lease. Does not belong here: what a lease is
(``state.owners``), or what the dead leave behind (``retiring``).

Counts of the cache ride on these transactions, so that counting costs none of its own.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from sqlalchemy import Connection

from embedding_pipeline.cache import stats
from embedding_pipeline.cache.stats import Counts, Tally
from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import StateError
from embedding_pipeline.service.keeping import Keeper
from embedding_pipeline.service.retiring import retire, sweep
from embedding_pipeline.state import owners
from embedding_pipeline.state.store import Store

log = logging.getLogger(__name__)


class Lease:
    """The lease of one service.

    Args:
        store: the shared store.
        clock: time.
        tally: what the cache's tiers were asked for; written with every renewal.
        keeper: keeps the durable tier within its bound; has its turn after every renewal.
    """

    def __init__(self, store: Store, clock: Clock, tally: Tally, keeper: Keeper) -> None:
        self._store = store
        self._clock = clock
        self._tally = tally
        self._keeper = keeper
        self._owner = owners.this_process()
        self._space_id = 0

    @property
    def owner_id(self) -> str:
        """Who holds it."""
        return self._owner.id

    def take(self, connection: Connection, space_id: int) -> None:
        """Sign on, and clean up behind the dead. Counts are for this space."""
        now = self._now_ms()
        owners.register(connection, self._owner, now)
        sweep(connection, now, asking=self._owner.id)
        self._space_id = space_id
        self._keeper.protect([space_id])

    async def keep(self) -> None:
        """Renew it until cancelled."""
        while True:
            await self._clock.sleep(owners.RENEW_SECONDS)
            counts = self._tally.take()
            try:
                await self._store.write(partial(self._renew, counts))
            except StateError as exc:
                self._tally.give_back(counts)
                log.warning("lease not renewed, tried again in a moment: %s", exc)
            else:
                await self._tidy(self._keeper.tidy)

    async def end(self) -> None:
        """Sign off; what is still out by then is booked as unknown."""
        counts = self._tally.take()

        def work(connection: Connection) -> None:
            now = self._now_ms()
            self._write_down(connection, counts, now)
            retire(connection, [self._owner.id])
            sweep(connection, now)

        try:
            await self._store.write(work)
        except StateError as exc:
            log.warning("lease not ended, it runs out by itself: %s", exc)
        else:
            await self._tidy(self._keeper.leave)

    def _renew(self, counts: Counts, connection: Connection) -> None:
        now = self._now_ms()  # not before the lock was there, which may take its time
        if not owners.renew(connection, self._owner, now):
            owners.register(connection, self._owner, now)
        self._write_down(connection, counts, now)

    def _write_down(self, connection: Connection, counts: Counts, now: int) -> None:
        stats.add(connection, self._space_id, counts, now)
        self._keeper.write_down(connection, now)

    async def _tidy(self, step: Callable[[], Awaitable[object]]) -> None:
        try:
            await step()
        except StateError as exc:
            log.warning("the cache is not kept within its bound for now: %s", exc)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)
