"""Dagster's SQLite storage, with an event log that takes many events in one transaction.

Belongs here: which events are written together. Does not belong here: what is stored. Files,
tables and every statement are Dagster's own, so that either storage reads what the other
wrote; whatever is not written in a batch goes Dagster's own way.

Dagster 1.13 hands a range run's planned events and materializations to its storage in batches
where ``DAGSTER_EVENT_BATCH_SIZE`` is set, but its SQLite storage writes each of them alone: it
builds an engine, connects and commits, three or four times an event. That is 11 ms, and a day
of a model change is ten events. In a batch it is below one.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Self

import dagster as dg
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from sqlalchemy import Connection

BATCH: Final = 500
"""Events in one transaction at most."""

_TOGETHER: Final = frozenset(ASSET_EVENTS | ASSET_CHECK_EVENTS)


class BatchedEventLog(SqliteEventLogStorage):
    """The event log; what is about partitions is written in batches."""

    def __init__(self, base_dir: str) -> None:
        self._here = threading.local()
        self._tables: set[str] = set()
        super().__init__(base_dir)

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event, or keep it for the end of ``together``."""
        waiting = self._waiting
        if waiting is None or not _batchable(event):
            self._flush()
            super().store_event(event)
            return
        waiting.append(event)
        if len(waiting) >= BATCH:
            self._flush()

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events: those of a run in one transaction of its file and one of the index.

        As Dagster does it with each: first in the run's file, then in the index.
        """
        for (run_id, together), group in groupby(events, lambda it: (it.run_id, _batchable(it))):
            if together:
                self._store_together(run_id, list(group))
            else:
                super().store_event_batch(list(group))

    @contextmanager
    def together(self) -> Iterator[None]:
        """What this thread says of partitions in the block is written at its end at once.

        Reading in the block does not show it. A block that raises writes it all the same.
        """
        self._here.waiting = []
        try:
            yield
        finally:
            try:
                self._flush()
            finally:
                self._here.waiting = None

    def index_connection(self) -> AbstractContextManager[Connection]:
        """The index; within a batch the connection that writes it."""
        held: Connection | None = getattr(self._here, "index", None)
        return super().index_connection() if held is None else nullcontext(held)

    def has_table(self, table_name: str) -> bool:
        """Whether there is such a table; one that was seen is not looked for again."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    @property
    def _waiting(self) -> list[dg.EventLogEntry] | None:
        waiting: list[dg.EventLogEntry] | None = getattr(self._here, "waiting", None)
        return waiting

    def _flush(self) -> None:
        waiting = self._waiting
        if waiting:
            self._here.waiting = []
            self.store_event_batch(waiting)

    def _store_together(self, run_id: str, events: Sequence[dg.EventLogEntry]) -> None:
        rows = [self._event_to_row(event) for event in events]
        with self.run_connection(run_id) as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
        with super().index_connection() as connection, self._holding(connection):
            self._mirror(connection, events, rows)

    @contextmanager
    def _holding(self, connection: Connection) -> Iterator[None]:
        self._here.index = connection
        try:
            yield
        finally:
            self._here.index = None

    def _mirror(
        self,
        connection: Connection,
        events: Sequence[dg.EventLogEntry],
        rows: Sequence[dict[str, Any]],
    ) -> None:
        """Into the index: the events, which is an asset's latest one, and what checks found."""
        insert = SqlEventLogStorageTable.insert()
        ids: list[int] = []
        for row in rows:
            key = connection.execute(insert, row).inserted_primary_key
            assert key is not None
            ids.append(key[0])
        found = list(zip(events, ids, strict=True))
        assets = [(event, id_) for event, id_ in found if _type(event) in ASSET_EVENTS]
        self._store_asset_event_tags(
            connection, [it for it, _ in assets], [id_ for _, id_ in assets]
        )
        latest = {
            (event.get_dagster_event().asset_key, _type(event)): (event, id_)
            for event, id_ in assets
        }
        for event, id_ in latest.values():
            self._store_asset_event(connection, event, id_)
        for event, id_ in found:
            if _type(event) in ASSET_CHECK_EVENTS:
                self.store_asset_check_event(event, id_)


class BatchedSqliteStorage(DagsterSqliteStorage):
    """Dagster's SQLite storage with ``BatchedEventLog``; ``storage.custom`` in ``dagster.yaml``."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        super().__init__(base_dir, inst_data)
        self._event_log_storage = BatchedEventLog(str(Path(base_dir) / "history" / "runs"))
        # the only way in which Dagster asks whether batches are wanted
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(BATCH))

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        """As Dagster makes it from ``dagster.yaml``."""
        return cls.from_local(inst_data=inst_data, **config_value)


def stored_together(instance: dg.DagsterInstance) -> AbstractContextManager[None]:
    """``BatchedEventLog.together``, where that is the instance's event log."""
    storage = instance.event_log_storage
    return storage.together() if isinstance(storage, BatchedEventLog) else nullcontext()


def _type(event: dg.EventLogEntry) -> dg.DagsterEventType | None:
    return event.dagster_event_type if event.is_dagster_event else None


def _batchable(event: dg.EventLogEntry) -> bool:
    return _type(event) in _TOGETHER
