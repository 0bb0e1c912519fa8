"""Dagster's PostgreSQL storage, which outlasts a restart of the server.

Belongs here: which calls are made again when the server left them, for how long, and how an
event is there once all the same. Does not belong here: what is stored. Tables, rows and
statements are Dagster's own, so that either storage reads what the other wrote.

Dagster 1.13 opens a connection for each call, tries to for six seconds, and lets a call that was
cut off fail; in a run, that is the end of the run. Here reading is repeated, and so is what comes
to the same when it is done twice. The rest first looks whether its first attempt went through:
a commit whose answer was lost did. A server's restart ends all its connections, so that nothing
of the first attempt is under way any more by then.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import Any, Final, Self, TypeVar

import dagster as dg
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.schema import (
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorageTable,
)
from dagster._core.storage.runs.schema import RunsTable
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage, PostgresRunStorage
from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config
from sqlalchemy import Connection, delete, select

from embedding_pipeline.defs.compat import history_is_away

log = logging.getLogger(__name__)

T = TypeVar("T")
C = TypeVar("C", bound=type)

READING: Final = ("get_", "has_", "can_", "fetch_", "alembic_version", "all_asset_keys")
"""How the names begin of what only reads."""

TWICE_AS_ONCE: Final = frozenset(
    (
        "add_daemon_heartbeat",
        "add_execution_plan_snapshot",
        "add_job_snapshot",
        "add_run_tags",
        "free_concurrency_slot_for_step",
        "free_concurrency_slots_for_run",
        "handle_run_event",
        "set_cursor_values",
        "update_backfill",
    )
)
"""What leaves the same when it is done twice."""


@dataclass(frozen=True)
class Patience:
    """How long the server may be away.

    Attributes:
        seconds: after so long, a call fails.
        pause: before the next attempt; Dagster itself tries to connect for six seconds in each.
        now: seconds on a clock that never steps back.
        sleep: waits so many seconds.
    """

    seconds: float = 120.0
    pause: float = 1.0
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def call(self, work: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """What ``work`` returns; ``again`` takes its place once the server has left it."""
        began = self.now()
        while True:
            try:
                return work()
            except Exception as error:
                if not history_is_away(error) or self.now() - began >= self.seconds:
                    raise
                log.warning(
                    "Dagster's history is away (%s); it is waited for", type(error).__name__
                )
            self.sleep(self.pause)
            work = again or work


IMPATIENT: Final = Patience(seconds=0.0)
"""For the web server: who looks at a page reloads it."""


def patient(cls: C) -> C:
    """Repeat what of a storage may be repeated, as long as its ``patience`` says."""
    for name in dir(cls):
        if name.startswith(READING) or name in TWICE_AS_ONCE:
            method = getattr(cls, name)
            if callable(method):
                setattr(cls, name, _repeated(method))
    return cls


def _repeated(method: Callable[..., T]) -> Callable[..., T]:
    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> T:
        if self._held.connection is not None:  # the whole transaction is repeated, or nothing
            return method(self, *args, **kwargs)
        patience: Patience = self.patience
        return patience.call(lambda: method(self, *args, **kwargs))

    return call


class _Held(threading.local):
    """The connection whose transaction a thread is in."""

    connection: Connection | None = None


@patient
class PatientRunStorage(PostgresRunStorage):
    """Dagster's runs and backfills; a run is added whole or not at all, and once."""

    patience = Patience()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._held = _Held()
        super().__init__(*args, **kwargs)

    def connect(self) -> AbstractContextManager[Connection]:
        """A connection; within ``_together`` the one of its transaction."""
        held = self._held.connection
        return super().connect() if held is None else nullcontext(held)

    def add_run(self, dagster_run: dg.DagsterRun) -> dg.DagsterRun:
        """Add a run. Raises DagsterRunAlreadyExists."""

        def add() -> dg.DagsterRun:
            with self._together():
                return super(PatientRunStorage, self).add_run(dagster_run)

        def again() -> dg.DagsterRun:
            return dagster_run if self.has_run(dagster_run.run_id) else add()

        return self.patience.call(add, again)

    def add_backfill(self, partition_backfill: Any) -> None:
        """Add a backfill."""

        def add() -> None:
            with self._together():
                super(PatientRunStorage, self).add_backfill(partition_backfill)

        def again() -> None:
            if self.get_backfill(partition_backfill.backfill_id) is None:
                add()

        self.patience.call(add, again)

    def add_run_tags(self, run_id: str, new_tags: Mapping[str, str]) -> None:
        """Tag a run: where its body has a tag, the table of tags has it too."""
        with self._together() as connection:
            _lock(connection, run_id)
            super().add_run_tags(run_id, new_tags)

    def handle_run_event(self, run_id: str, *args: Any, **kwargs: Any) -> None:
        """Take note of what a run has come to."""
        with self._together() as connection:
            _lock(connection, run_id)
            super().handle_run_event(run_id, *args, **kwargs)

    def optimize_for_webserver(self, *args: Any, **kwargs: Any) -> None:
        """As Dagster does it; nobody waits for a page for minutes."""
        super().optimize_for_webserver(*args, **kwargs)
        self.patience = IMPATIENT

    @contextmanager
    def _together(self) -> Iterator[Connection]:
        """What this thread does in the block is one transaction."""
        with super().connect() as connection:
            inside = connection.execution_options(isolation_level="READ COMMITTED")
            with inside.begin():
                self._held.connection = inside
                try:
                    yield inside
                finally:
                    self._held.connection = None


def _lock(connection: Connection, run_id: str) -> None:
    """Keep others from writing a run's row between our reading it and our writing it."""
    c = RunsTable.c
    connection.execute(select(c.id).where(c.run_id == run_id).with_for_update())


@patient
class PatientEventLog(PostgresEventLogStorage):
    """Dagster's events; each is there once, with all that is written of it elsewhere."""

    patience = Patience()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._held = _Held()
        super().__init__(*args, **kwargs)

    def index_connection(self) -> AbstractContextManager[Connection]:
        """A connection; while an event is mended the one of its transaction."""
        held = self._held.connection
        return super().index_connection() if held is None else nullcontext(held)

    def store_event(self, event: dg.EventLogEntry) -> None:
        """Store an event."""
        first = super().store_event
        self.patience.call(lambda: first(event), lambda: self._mend(event, first))

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        """Store events."""
        one, every = super().store_event, super().store_event_batch

        def again() -> None:
            for event in events:
                self._mend(event, one)

        self.patience.call(lambda: every(events), again)

    def optimize_for_webserver(self, *args: Any, **kwargs: Any) -> None:
        """As Dagster does it; nobody waits for a page for minutes."""
        super().optimize_for_webserver(*args, **kwargs)
        self.patience = IMPATIENT

    def _mend(self, event: dg.EventLogEntry, store: Callable[[dg.EventLogEntry], None]) -> None:
        """Store what an attempt that was cut off has left undone.

        It wrote the event first, by itself. All that is said of it elsewhere is written anew.
        """
        id_ = self._find(event)
        if id_ is None:
            store(event)
            return
        of_dagster = event.dagster_event_type if event.is_dagster_event else None
        with self.index_transaction() as connection:
            self._held.connection = connection
            try:
                _forget(connection, id_)
                if of_dagster in ASSET_EVENTS and event.get_dagster_event().asset_key:
                    self._store_asset_event_tags(connection, [event], [id_])
                    self._store_asset_event(connection, event, id_)
                if of_dagster in ASSET_CHECK_EVENTS:
                    self.store_asset_check_event(event, id_)
            finally:
                self._held.connection = None

    def _find(self, event: dg.EventLogEntry) -> int | None:
        """The id of an event that is there already: it holds the instant it was made at."""
        row, c = self._event_to_row(event), SqlEventLogStorageTable.c
        found = select(c.id).where(c.run_id == row["run_id"], c.event == row["event"]).limit(1)
        with self.run_connection(event.run_id) as connection:
            return connection.execute(found).scalar()


def _forget(connection: Connection, id_: int) -> None:
    """Take away what was said of an event elsewhere, as far as it is said again."""
    connection.execute(delete(AssetEventTagsTable).where(AssetEventTagsTable.c.event_id == id_))
    c = AssetCheckExecutionsTable.c
    planned = c.execution_status == AssetCheckExecutionRecordStatus.PLANNED.value
    mine = c.evaluation_event_storage_id == id_
    connection.execute(delete(AssetCheckExecutionsTable).where(mine, planned))


class PatientPostgresStorage(DagsterPostgresStorage):
    """Dagster's PostgreSQL storage with both; ``storage.custom`` in ``dagster.yaml``."""

    def __init__(
        self,
        postgres_url: str,
        should_autocreate_tables: bool = True,
        inst_data: Any = None,
        token_provider: Any = None,
    ) -> None:
        opened = super().__init__  # it looks for its tables, in every process that begins a run
        Patience().call(
            lambda: opened(postgres_url, should_autocreate_tables, inst_data, token_provider)
        )
        there = {"should_autocreate_tables": False, "token_provider": token_provider}
        self._run_storage = PatientRunStorage(postgres_url, **there)
        self._event_log_storage = PatientEventLog(postgres_url, **there)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:
        """As Dagster makes it from ``dagster.yaml``."""
        return cls(
            inst_data=inst_data,
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            token_provider=get_token_provider_from_config(config_value),
        )
