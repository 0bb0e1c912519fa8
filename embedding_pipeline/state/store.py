"""Transactions on the shared store, from async code.

Belongs here: the engine, threads, transactions, and mapping database errors to ours.
Does not belong here: any statement about vectors, money or claims.

Many vectors at a time lie in files next to an SQLite database (``beside``). Its settings: see
``sqlite``; PostgreSQL's: see ``postgres``.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import (
    ConfigurationError,
    StateError,
    StateInterrupted,
    StateUnreachable,
)
from embedding_pipeline.state import postgres, sqlite
from embedding_pipeline.state.beside import Beside
from embedding_pipeline.state.grouping import GroupWriter
from embedding_pipeline.state.migrations import LATEST, migrate, version_of

T = TypeVar("T")

log = logging.getLogger(__name__)

READERS: Final = 2

PATIENCE_SECONDS: Final = 120.0
"""Longest absence of a server that is waited out: a restart, or a standby taking over."""

PAUSES: Final = (0.25, 5.0)
"""First and longest pause between two tries."""


class Store:
    """The shared store. Open one per process; safe to use from one event loop.

    Attributes:
        url: where it is.
        beside: the files next to it; None where it has none.
    """

    def __init__(self, url: str, clock: Clock, *, rows: bool = False) -> None:
        """Open ``url`` (an SQLAlchemy URL) and bring its schema up to date.

        Args:
            url: where it is.
            clock: time, for the schema's own books.
            rows: on PostgreSQL, writes lock the rows they name (``FOR UPDATE``) and do not
                wait for other writers; nor for the disk, so that a crash of the server may
                lose the last of them. For a room whose state is one row. SQLite has one
                writer at a time in any case.

        Raises:
            ConfigurationError: the URL is malformed or of a kind that is not supported.
            StateError: the store cannot be opened, or is newer than this code.
        """
        self.url = url
        self._clock = clock
        self._engine = _engine(url)
        self.beside = _beside(self._engine.url)
        self._writer = GroupWriter(lambda work: self._transact(work, True, rows))
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="state-read")
        try:
            with self._edge():
                if self._transact(version_of, False) != LATEST:  # looking takes no lock
                    self._transact(lambda c: migrate(c, int(clock.now() * 1000)), True)
        except BaseException:
            self.close()
            raise

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in an exclusive transaction, in the writing thread. All or nothing.

        A caller that is cancelled meanwhile does not learn which of the two it was. While the
        server is away, as when it is restarted, this waits for it.

        Raises:
            StateError: the store refused, and nothing of ``work`` was kept; or it is closed.
        """
        return await self._endure(lambda: self._hand_in(self._writer.submit, work))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """As ``write``, on one consistent snapshot, in a reading thread. Raises StateError."""
        return await self._endure(
            lambda: self._hand_in(self._readers.submit, self._transact, work, False)
        )

    def ask(self, work: Callable[[Connection], T]) -> T:
        """``read`` for callers without an event loop; blocks them. Raises StateError."""
        with self._edge():
            return self._transact(work, False)

    def close(self) -> None:
        """Finish what is under way and close every connection. Safe to call twice."""
        self._writer.close()
        self._readers.shutdown(wait=True)
        if self.beside is not None:
            with suppress(StateError):  # of what cannot be synced the rows are checked when read
                self.beside.sync()
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hand_in(self, submit: Callable[..., Future[T]], *args: Any) -> asyncio.Future[T]:
        try:
            return asyncio.wrap_future(submit(*args))
        except RuntimeError as exc:  # what threads say that have been shut down
            raise StateError(f"state store {self.where}: it is closed; open a new one") from exc

    async def _endure(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try again while the server is away; what was begun is never begun twice."""
        pause, began = PAUSES[0], self._clock.monotonic()
        while True:
            try:
                with self._edge():
                    return await attempt()
            except StateUnreachable as exc:
                if self._clock.monotonic() - began >= PATIENCE_SECONDS:
                    raise
                if pause == PAUSES[0]:
                    log.warning("waiting for it: %s", exc)
            await self._clock.sleep(pause)
            pause = min(2 * pause, PAUSES[1])

    def _transact(self, work: Callable[[Connection], T], exclusive: bool, rows: bool = False) -> T:
        with ExitStack() as stack:
            with _entering(self.url):
                connection = stack.enter_context(self._engine.connect())
                connection.execution_options(exclusive=exclusive, rows=rows, beside=self.beside)
                stack.enter_context(connection.begin())
            return work(connection)

    def _edge(self) -> AbstractContextManager[None]:
        return _edge(self.url)

    @property
    def where(self) -> str:
        """The store's place for messages, without a password."""
        return _where(self.url)


def schema_of(url: str) -> int:
    """The schema version of a store, which is left as it is; 0 when it is empty.

    Raises:
        ConfigurationError: the URL is malformed or of a kind that is not supported.
        StateError: it cannot be read.
    """
    engine = _engine(url)
    try:
        with _edge(url), _entering(url), engine.connect() as connection:
            connection.execution_options(exclusive=False)
            with connection.begin():
                return version_of(connection)
    finally:
        engine.dispose()


@contextmanager
def _entering(url: str) -> Iterator[None]:
    """Where a server does not let us begin: it is away, or not the one that we trust.

    Blocks: it may be asked for its certificate.
    """
    try:
        yield
    except DBAPIError as exc:
        if not postgres.is_away(exc):
            raise
        if why := postgres.distrusted(exc):  # no time cures that
            raise StateError(f"state store {_where(url)}: {why}") from exc
        raise StateUnreachable(f"state store {_where(url)}: {_reason(exc)}") from exc


@contextmanager
def _edge(url: str) -> Iterator[None]:
    """Where errors of the database become ours."""
    try:
        yield
    except DBAPIError as exc:
        kind = StateInterrupted if postgres.is_lost(exc) else StateError
        raise kind(f"state store {_where(url)}: {_reason(exc)}") from exc
    except SQLAlchemyError as exc:
        raise StateError(f"state store {_where(url)}: {type(exc).__name__}") from exc


def _where(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise ConfigurationError(
            "state_url is not an SQLAlchemy URL; write it like sqlite:///path/to/state.db"
        ) from exc
    return _BACKENDS.get(parsed.get_backend_name(), _refuse)(parsed)


def _beside(url: URL) -> Beside | None:
    """Files that only this machine sees go with a database that only this machine sees."""
    if url.get_backend_name() != "sqlite":
        return None
    return Beside(Path(f"{url.database}-vectors"))


def _refuse(url: URL) -> Engine:
    raise ConfigurationError(
        f"state_url: {url.get_backend_name()} is not supported; "
        "use postgresql://…, or leave it out to use SQLite in data_dir"
    )


def _postgres_engine(url: URL) -> Engine:
    return postgres.postgres_engine(url, READERS + 1, sqlite.BUSY_SECONDS)


def _sqlite_engine(url: URL) -> Engine:
    return sqlite.sqlite_engine(url, READERS + 1)


_BACKENDS: Final = {"sqlite": _sqlite_engine, "postgresql": _postgres_engine}


def _reason(exc: DBAPIError) -> str:
    if isinstance(exc.orig, sqlite3.Error):
        return sqlite.reason(exc.orig)
    return postgres.reason(exc)
