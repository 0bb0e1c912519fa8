"""The state store of a machine: real statements on a real SQLite, and faults at every write.

Belongs here: transactions done as steps of their process, after a delay, or not at all. Does
not belong here: the store's own threads and group commits, which have tests of their own.

The database is in memory, in the small pages that small worlds need, and open once for all
seeds: each begins with the bytes of a new one.
"""

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.pool import StaticPool

from embedding_pipeline.errors import StateError
from embedding_pipeline.state import sqlite as real
from embedding_pipeline.state.beside import Beside
from embedding_pipeline.state.migrations import migrate
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.simulation.machine import Machine

T = TypeVar("T")


@dataclass(frozen=True)
class Trouble:
    """What goes wrong with transactions.

    Attributes:
        slowest: seconds one takes at most.
        refused: share of the writes that are refused, and of which nothing is kept.
        unclear: share of the writes that are kept and yet reported as failed, as when a
            connection breaks on the word that it was.
    """

    slowest: float = 0.01
    refused: float = 0.0
    unclear: float = 0.0


NONE = Trouble()


@cache
def _new() -> tuple[Connection, bytes]:
    """The one connection, and what an empty database looks like."""
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", real._on_begin)
    connection = engine.connect()
    with connection.begin():
        migrate(connection, 0)
    return connection, _driver(connection).serialize()


def _on_connect(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # as the store does it
    connection.execute("PRAGMA page_size=4096")
    connection.execute("PRAGMA foreign_keys=ON")


def _driver(connection: Connection) -> sqlite3.Connection:
    driver: Any = connection.connection.dbapi_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


@dataclass
class Disk:
    """The database all processes share.

    Attributes:
        trouble: what goes wrong at present.
        folder: where vectors lie in files beside the store; None keeps them in its rows.
        after: called after every transaction that wrote.
    """

    machine: Machine
    rng: random.Random
    trouble: Trouble = NONE
    folder: Path | None = None
    after: list[Callable[[], None]] = field(default_factory=list)
    connection: Connection = field(default_factory=lambda: _new()[0])

    @property
    def raw(self) -> sqlite3.Connection:
        """The driver's connection, for those who look on."""
        return _driver(self.connection)

    def empty(self) -> None:
        """As it was when it was new."""
        self.raw.deserialize(_new()[1])


class DiskStore(Store):
    """A store as one process has it open."""

    def __init__(self, disk: Disk) -> None:
        self.url = "sqlite:///simulated.db"
        self._disk = disk
        self.beside = None if disk.folder is None else Beside(disk.folder)
        self._open = True

    async def write(self, work: Callable[[Connection], T]) -> T:
        with self._edge():
            return await self._soon(work, True)

    async def read(self, work: Callable[[Connection], T]) -> T:
        with self._edge():
            return await self._soon(work, False)

    def close(self) -> None:
        self._open = False

    def _transact(self, work: Callable[[Connection], T], exclusive: bool, rows: bool = False) -> T:
        connection = self._disk.connection
        connection.execution_options(exclusive=exclusive, rows=rows, beside=self.beside)
        with connection.begin():
            return work(connection)

    async def _soon(self, work: Callable[[Connection], T], exclusive: bool) -> T:
        if not self._open:
            raise StateError("state store: it is closed; open a new one")
        disk, done = self._disk, asyncio.get_running_loop().create_future()
        delay = disk.rng.uniform(0, disk.trouble.slowest)
        disk.machine.call_later(delay, self._perform, work, exclusive, done)
        result: T = await done
        return result

    def _perform(
        self, work: Callable[[Connection], T], exclusive: bool, done: "asyncio.Future[T]"
    ) -> None:
        disk = self._disk
        if done.cancelled() and disk.rng.random() < 0.5:
            return  # it had not begun yet
        luck = disk.rng.random() if exclusive else 1.0
        refused, unclear = disk.trouble.refused, disk.trouble.unclear
        if luck < refused:
            disk.machine.note("write refused")
        try:
            result = self._transact(_taken_back(work) if luck < refused else work, exclusive)
            if exclusive:
                self._look()
            if luck < refused + unclear:
                disk.machine.note("write kept and reported as failed")
                raise StateError("state store: broken off, as a seed wants it")
        except Exception as exc:  # noqa: BLE001 - whoever asked gets it
            if not done.cancelled():
                done.set_exception(exc)
        else:
            if not done.cancelled():
                done.set_result(result)

    def _look(self) -> None:
        try:
            for look in self._disk.after:
                look()
        except AssertionError as exc:
            self._disk.machine.fail(exc)


def _taken_back(work: Callable[[Connection], T]) -> Callable[[Connection], T]:
    """The work, and nothing of it kept: what it did outside the database stays."""

    def refused(connection: Connection) -> T:
        work(connection)
        raise StateError("state store: refused, as a seed wants it")

    return refused


@contextmanager
def opened(machine: Machine, rng: random.Random) -> Iterator[Disk]:
    """An empty disk."""
    disk = Disk(machine, rng)
    disk.empty()
    yield disk
