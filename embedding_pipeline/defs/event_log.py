"""Dagster's SQLite storage, with an event log that takes many events in one transaction.

Belongs here: which events are written together. Does not belong here: what is stored. Files and
tables are Dagster's own and every row is what Dagster would write, so that either storage reads
what the other wrote; whatever is not written in a batch goes Dagster's own way.

Dagster 1.13 hands a range run's planned events and materializations to its storage in batches
where ``DAGSTER_EVENT_BATCH_SIZE`` is set, but its SQLite storage writes each of them alone: it
builds an engine, connects and commits, three or four times an event. That is 11 ms, and a day
of a model change is ten events. In a batch it is below one.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import dagster as dg
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from sqlalchemy import Connection, bindparam

BATCH: Final = 500
"""Events in one transaction at most."""

PLANNED: Final = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED

JUDGED: Final = dg.DagsterEventType.ASSET_CHECK_EVALUATION

Stored: TypeAlias = tuple[dg.EventLogEntry, int, Mapping[str, Any]]
"""An event, its id in the index, and its row."""

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
        found = list(zip(events, _insert(connection, rows), rows, strict=True))
        assets = [(event, id_) for event, id_, _ in found if _type(event) in ASSET_EVENTS]
        self._store_asset_event_tags(connection, *_columns(assets))
        latest = {(it.get_dagster_event().asset_key, _type(it)): (it, id_) for it, id_ in assets}
        for event, id_ in latest.values():
            self._store_asset_event(connection, event, id_)
        planned = [it for it in found if _type(it[0]) is PLANNED]
        for event, id_, row in planned:
            connection.execute(AssetCheckExecutionsTable.insert(), _plans(event, id_, row))
        judged = [it for it in found if _type(it[0]) is JUDGED]
        if judged and not _update(connection, judged):
            for event, id_, _ in judged:
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


def _insert(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[int]:
    """Insert events; their ids."""
    insert = SqlEventLogStorageTable.insert()
    if connection.dialect.insert_executemany_returning_sort_by_parameter_order:
        found = insert.returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
        return list(connection.execute(found, rows).scalars())
    keys = [connection.execute(insert, row).inserted_primary_key for row in rows]
    return [int(key[0]) for key in keys if key is not None]


def _plans(event: dg.EventLogEntry, id_: int, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of a check that is planned, one a partition: as Dagster writes them."""
    planned: Any = event.get_dagster_event().event_specific_data
    partitions = planned.partitions_subset.get_partition_keys() if planned.partitions_subset else ()
    common = {
        "asset_key": planned.asset_key.to_string(),
        "check_name": planned.check_name,
        "run_id": event.run_id,
        "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
        "evaluation_event": row["event"],
        "evaluation_event_timestamp": row["timestamp"],
        "evaluation_event_storage_id": id_,
    }
    return [{**common, "partition": partition} for partition in partitions or (None,)]


def _update(connection: Connection, judged: Sequence[Stored]) -> bool:
    """Enter verdicts in the rows of what was planned; False where one of those is not there."""
    c = AssetCheckExecutionsTable.c
    mine = [bindparam("of_" + it.name) == it for it in (c.asset_key, c.check_name, c.run_id)]
    update = AssetCheckExecutionsTable.update().where(*mine, c.partition == bindparam("of_day"))
    values = [_verdict(event, id_, row) for event, id_, row in judged]
    update = update.values({name: bindparam(name) for name in values[0] if name[:3] != "of_"})
    return connection.execute(update, values).rowcount == len(values)


def _verdict(event: dg.EventLogEntry, id_: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """What is entered of an evaluation, and in which row: as Dagster does it."""
    judged = event.get_dagster_event().event_specific_data
    assert isinstance(judged, dg.AssetCheckEvaluation)
    status = AssetCheckExecutionRecordStatus
    target = judged.target_materialization_data
    return {
        "of_asset_key": judged.asset_key.to_string(),
        "of_check_name": judged.check_name,
        "of_run_id": event.run_id,
        "of_day": judged.partition,
        "execution_status": (status.SUCCEEDED if judged.passed else status.FAILED).value,
        "evaluation_event": row["event"],
        "evaluation_event_timestamp": row["timestamp"],
        "evaluation_event_storage_id": id_,
        "materialization_event_storage_id": target.storage_id if target else None,
    }


def _columns(
    found: Sequence[tuple[dg.EventLogEntry, int]],
) -> tuple[list[dg.EventLogEntry], list[int]]:
    return [event for event, _ in found], [id_ for _, id_ in found]


def _type(event: dg.EventLogEntry) -> dg.DagsterEventType | None:
    return event.dagster_event_type if event.is_dagster_event else None


def _batchable(event: dg.EventLogEntry) -> bool:
    return _type(event) in _TOGETHER
