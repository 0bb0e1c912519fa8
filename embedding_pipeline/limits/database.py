"""The state of the limits in the shared store (SQLite, PostgreSQL): one row, one transaction.

Belongs here: reading and writing that row. Does not belong here: any arithmetic.

The instant is PostgreSQL's own; SQLite serves the processes of one machine, which have one
clock already. On PostgreSQL only the row is locked (``Store(rows=True)``): a permit does not
wait for a commit of vectors. The store never shows a state that is not whole, but a server
that crashes may forget the last permits: the next reply's headers put that right.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import Connection, select

from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import StateError
from embedding_pipeline.limits.base import LimitStore
from embedding_pipeline.limits.protocol import Answer, Ask, Terms
from embedding_pipeline.limits.sharing import exchange
from embedding_pipeline.limits.state import State, from_json, to_json
from embedding_pipeline.state.schema import limits
from embedding_pipeline.state.statements import mark, run, upsert_into
from embedding_pipeline.state.store import Store

_LOCKED: Final = (
    "SELECT state, (extract(epoch FROM clock_timestamp()) * 1000)::bigint "
    "FROM limits WHERE key = %s FOR UPDATE"
)
"""PostgreSQL evaluates this anew for a row it had to wait for, the instant included."""


class DatabaseLimits(LimitStore):
    """Limits in a store of their own, which is closed with them.

    Args:
        opening: opens a store, on first use; nobody else writes through it, so that a
            permit does not wait for a commit of vectors.
        clock: the time, where the database has none of its own.
    """

    def __init__(self, opening: Callable[[], Store], clock: Clock) -> None:
        self._open = opening
        self._clock = clock
        self._store: Store | None = None
        self._lock = asyncio.Lock()

    async def exchange(self, key: str, terms: Terms, ask: Ask) -> Answer:
        def work(connection: Connection) -> Answer:
            found, now = self._read(connection, key)
            state = from_json(found) if found else None
            after, answer = exchange(state, terms, ask, now)
            sign = mark(connection)
            change = f"UPDATE limits SET state = {sign} WHERE key = {sign}"  # noqa: S608 - no value
            run(connection, change, (to_json(after), key))
            return answer

        return await (self._store or await self._opened()).write(work)

    async def states(self) -> Mapping[str, State]:
        def work(connection: Connection) -> dict[str, State]:
            rows = connection.execute(select(limits.c.key, limits.c.state).order_by(limits.c.key))
            return {key: from_json(state) for key, state in rows if state}

        return await (self._store or await self._opened()).read(work)

    async def aclose(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            await asyncio.to_thread(store.close)

    async def _opened(self) -> Store:
        async with self._lock:
            if self._store is None:
                self._store = await asyncio.to_thread(self._open)
            return self._store

    def _read(self, connection: Connection, key: str) -> tuple[str, int]:
        """The state ("" if there is none yet) and the instant; the row is ours from here on."""
        row = self._row(connection, key)
        if row is None:
            blank = upsert_into(connection, limits).values(key=key, state="")
            connection.execute(blank.on_conflict_do_nothing())
            row = self._row(connection, key)
        if row is None:
            raise StateError("the state of the rate limits was deleted meanwhile; try again")
        return row

    def _row(self, connection: Connection, key: str) -> tuple[str, int] | None:
        if connection.dialect.name == "postgresql":
            found = connection.exec_driver_sql(_LOCKED, (key,)).one_or_none()
            return None if found is None else (found[0], found[1])
        found = run(connection, "SELECT state FROM limits WHERE key = ?", (key,)).fetchone()
        return None if found is None else (found[0], int(self._clock.now() * 1000))
