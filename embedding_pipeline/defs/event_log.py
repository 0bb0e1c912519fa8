"""Dagster's SQLite storage, with its event log held open between two events.

Belongs here: which connections are kept, and for how long. Does not belong here: what is
stored. Files and tables are Dagster's own, so that either storage reads what the other wrote.

For every single event Dagster 1.13 builds an engine, connects, compiles its SQL anew and,
closing, writes the log back into the database: some 12 ms an event, up to seven commits of
it, and a day of a range run is eight events. With connections that stay open it is 2 ms.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

KEPT: Final = 4
"""Databases held open at once: the index, and the runs written or watched right now."""

_BUSY_SECONDS: Final = 60


class KeptEventLog(SqliteEventLogStorage):
    """The event log; each database's connection is kept and used again.

    A commit is written, not synced: a power cut may lose the last events of a run that it
    ended anyway, a killed process loses none. Money is not in there.
    """

    def __init__(self, base_dir: str) -> None:
        self._kept: OrderedDict[str, tuple[Engine, int]] = OrderedDict()
        super().__init__(base_dir)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
                self._kept[shard] = (engine, self._inode(shard))
            with engine.connect() as connection, connection.begin():
                yield connection

    def _engine(self, shard: str) -> Engine:
        """The database's engine; a new one where its file is another by now, or none."""
        engine, inode = self._kept.pop(shard, (None, 0))
        if engine is not None and inode != self._inode(shard):
            engine.dispose()
            engine = None
            self._initialized_dbs.discard(shard)
        if engine is None:
            engine = _open(self.conn_string_for_shard(shard))
        self._kept[shard] = (engine, self._inode(shard))
        while len(self._kept) > KEPT:
            _, (oldest, _) = self._kept.popitem(last=False)
            oldest.dispose()
        return engine

    def _inode(self, shard: str) -> int:
        """Which file it is; 0 where there is none."""
        with suppress(FileNotFoundError):
            return Path(self.path_for_shard(shard)).stat().st_ino
        return 0

    @property
    def open_files(self) -> int:
        """How many databases are held open."""
        return len(self._kept)

    def wipe(self) -> None:
        """Remove everything."""
        self._let_go()
        super().wipe()

    def dispose(self) -> None:
        """Close what is open."""
        super().dispose()
        self._let_go()

    def _let_go(self) -> None:
        with self._db_lock:
            while self._kept:
                _, (engine, _) = self._kept.popitem()
                engine.dispose()


class KeptSqliteStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with ``KeptEventLog``; ``storage.custom`` in ``dagster.yaml``."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        super().__init__(base_dir, inst_data)
        self._event_log_storage = KeptEventLog(str(Path(base_dir) / "history" / "runs"))

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        """As Dagster makes it from ``dagster.yaml``."""
        return cls.from_local(inst_data=inst_data, **config_value)


def _open(url: str) -> Engine:
    """An engine of one connection, which only one thread uses at a time."""
    engine = create_engine(
        url,
        poolclass=StaticPool,
        connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine
