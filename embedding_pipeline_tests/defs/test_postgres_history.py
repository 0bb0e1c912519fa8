"""Dagster's history on a PostgreSQL that keeps leaving: the same books as on one that stays."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import dagster as dg
import psycopg
import pytest
from dagster._core.errors import DagsterRunAlreadyExists
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster_postgres import DagsterPostgresStorage
from sqlalchemy import create_engine, event, make_url, text
from sqlalchemy.exc import OperationalError

from embedding_pipeline.defs import postgres_history
from embedding_pipeline.defs.compat import instance_ref
from embedding_pipeline.defs.postgres_history import (
    IMPATIENT,
    Patience,
    PatientEventLog,
    PatientRunStorage,
)
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.defs.test_event_log import KEYS, books, run
from embedding_pipeline_tests.servers import postgres_server, postgres_url  # noqa: F401 - fixtures

AT_ONCE = Patience(pause=0.0, sleep=lambda _seconds: None)
AWAY = OperationalError("COMMIT", {}, Exception("the server closed the connection"))
TABLES = ("runs", "run_tags", "event_logs", "asset_event_tags", "asset_check_executions")
SOME = (KEYS[2], KEYS[4])
MODULE = "embedding_pipeline.defs.postgres_history"


def home_on(folder: Path, url: str, *, patient: bool) -> dg.DagsterInstance:
    """An instance on the database, by our storage or by Dagster's own."""
    here = {"postgres_url": make_url(url).set(drivername="postgresql+psycopg2").render_as_string()}
    custom = {"module": MODULE, "class": "PatientPostgresStorage", "config": here}
    storage = {"custom": custom} if patient else {"postgres": here}
    folder.mkdir(exist_ok=True)
    ref = instance_ref(folder, {"storage": storage, "telemetry": {"enabled": False}})
    return dg.DagsterInstance.from_ref(ref)


def rows(url: str) -> dict[str, int]:
    """How many rows each table of the history has."""
    with psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string()) as it:
        counts = {table: it.execute(f"SELECT count(*) FROM {table}") for table in TABLES}
        return {table: int(row[0]) for table, count in counts.items() for row in count}


@contextmanager
def second_database(url: str) -> Iterator[str]:
    """Another one on the same server."""
    other = make_url(url).database + "b"  # type: ignore[operator]
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {other}"))
    try:
        yield make_url(url).set(database=other).render_as_string()
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {other} WITH (FORCE)"))
        engine.dispose()


class Trouble:
    """Connections that break: before a statement is carried out, or when it has been."""

    def __init__(self, seed: int, often: float) -> None:
        self.random, self.often = Random(seed), often
        self.before = self.after = 0

    def befall(self, storage: Any) -> None:
        """From now on, what this storage does meets it."""
        event.listen(storage._engine, "before_cursor_execute", self._before)
        event.listen(storage._engine, "after_cursor_execute", self._after)
        storage.patience = AT_ONCE

    def _before(self, connection: Any, *_: Any) -> None:
        if self.random.random() < self.often:
            self.before += 1
            connection.connection.dbapi_connection.close()  # the driver then says what it says

    def _after(self, *_: Any) -> None:
        if self.random.random() < self.often:
            self.after += 1
            raise AWAY


def test_a_server_that_keeps_leaving_leaves_the_books_it_would_have_left(
    tmp_path: Path,
    postgres_url: str,  # noqa: F811
) -> None:
    trouble = Trouble(seed=1, often=0.12)
    with (
        second_database(postgres_url) as other,
        home_on(tmp_path / "ours", postgres_url, patient=True) as ours,
        home_on(tmp_path / "own", other, patient=False) as own,
    ):
        trouble.befall(ours.event_log_storage)
        trouble.befall(ours.run_storage)
        found, expected = books(ours, run(ours, *SOME)), books(own, run(own, *SOME))
        assert rows(postgres_url) == rows(other)
    assert found == expected
    assert len(expected["made"]) == 3  # type: ignore[arg-type]
    assert trouble.before > 10
    assert trouble.after > 10


def lost_once(storage: PatientRunStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer to this storage's next commit is lost."""
    together = storage._together

    @contextmanager
    def losing() -> Iterator[Any]:
        monkeypatch.setattr(storage, "_together", together)
        with together() as connection:
            yield connection
        raise AWAY

    monkeypatch.setattr(storage, "_together", losing)


def test_what_was_added_though_nobody_heard_of_it_is_added_once(
    tmp_path: Path,
    postgres_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_id = "11111111-2222-3333-4444-555555555555"
    one = dg.DagsterRun(job_name="all", run_id=run_id, tags={"a": "b"})
    many = PartitionBackfill(
        "there",
        BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={"c": "d"},
        backfill_timestamp=0.0,
    )
    with home_on(tmp_path, postgres_url, patient=True) as instance:
        storage = instance.run_storage
        assert isinstance(storage, PatientRunStorage)
        storage.patience = AT_ONCE
        for add in (
            lambda: storage.add_run(one),
            lambda: storage.add_backfill(many),
            lambda: storage.add_run_tags(run_id, {"e": "f"}),
        ):
            lost_once(storage, monkeypatch)
            add()
        assert [run.tags for run in instance.get_runs()] == [{"a": "b", "e": "f"}]
        assert [it.backfill_id for it in instance.get_backfills()] == ["there"]
        assert rows(postgres_url)["run_tags"] == 2
        with ThreadPoolExecutor(4) as threads:  # Dagster's own storage loses some of these
            list(threads.map(lambda n: storage.add_run_tags(run_id, {n: n}), map(str, range(20))))
        assert {str(n) for n in range(20)} <= instance.get_runs()[0].tags.keys()
        with pytest.raises(DagsterRunAlreadyExists):
            storage.add_run(one)
        instance.optimize_for_webserver(1000, 60, 1)  # nobody waits for a page for minutes
        assert storage.patience == IMPATIENT
        assert isinstance(instance.event_log_storage, PatientEventLog)
        assert instance.event_log_storage.patience == IMPATIENT


def test_a_process_begins_though_the_server_is_away_just_then(
    tmp_path: Path,
    postgres_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened, tried = DagsterPostgresStorage.__init__, list[object]()

    def late(self: Any, *args: Any) -> None:
        tried.append(self)
        if len(tried) < 3:
            raise AWAY
        opened(self, *args)

    monkeypatch.setattr(DagsterPostgresStorage, "__init__", late)
    monkeypatch.setattr(postgres_history, "Patience", lambda: AT_ONCE)
    with home_on(tmp_path, postgres_url, patient=True) as instance:
        assert instance.get_runs() == []
    assert len(tried) == 3


def test_a_server_is_waited_for_within_bounds(clock: FakeClock) -> None:
    def sleep(seconds: float) -> None:
        clock.advance(seconds)

    def away() -> None:
        raise AWAY

    with pytest.raises(OperationalError):
        Patience(seconds=120.0, pause=1.0, now=clock.monotonic, sleep=sleep).call(away)
    assert clock.elapsed == 120.0


def test_what_is_wrong_with_a_call_is_not_waited_for() -> None:
    def wrong() -> None:
        raise ValueError

    def never(_seconds: float) -> None:
        raise AssertionError

    with pytest.raises(ValueError):
        Patience(sleep=never).call(wrong)
