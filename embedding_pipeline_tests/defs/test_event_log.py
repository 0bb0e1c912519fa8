"""Dagster's SQLite storage with its files held open: the same books, whoever reads them."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from embedding_pipeline.defs import event_log
from embedding_pipeline.defs.compat import instance_ref
from embedding_pipeline.defs.event_log import KeptEventLog

CUSTOM = {"module": "embedding_pipeline.defs.event_log", "class": "KeptSqliteStorage"}
RUNS = 3 * event_log.KEPT


def opened(home: Path, *, kept: bool) -> dg.DagsterInstance:
    """An instance on the files at ``home``, by our storage or by Dagster's own."""
    here = {"base_dir": str(home)}
    storage = {"custom": {**CUSTOM, "config": here}} if kept else {"sqlite": here}
    telemetry = {"enabled": False}
    return dg.DagsterInstance.from_ref(
        instance_ref(home, {"storage": storage, "telemetry": telemetry})
    )


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with opened(tmp_path, kept=True) as instance:
        yield instance


@dg.asset
def thing() -> None:
    """Something."""


def run(instance: dg.DagsterInstance) -> str:
    return str(dg.materialize([thing], instance=instance).run_id)


def events(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [entry.message for entry in instance.all_logs(run_id)]


def test_both_storages_read_what_either_wrote(kept: dg.DagsterInstance, tmp_path: Path) -> None:
    assert isinstance(kept.event_log_storage, KeptEventLog)
    first = run(kept)
    with opened(tmp_path, kept=False) as stock:
        assert events(stock, first) == events(kept, first)
        second = run(stock)
        assert events(kept, second) == events(stock, second)
        assert len(kept.fetch_materializations(thing.key, limit=9).records) == 2


def test_more_runs_than_are_kept_open_are_all_there(kept: dg.DagsterInstance) -> None:
    runs = [run(kept) for _ in range(RUNS)]
    logs = [events(kept, run_id) for run_id in runs]
    assert all(any("RUN_SUCCESS" in line or "Finished" in line for line in log) for log in logs)
    storage = kept.event_log_storage
    assert isinstance(storage, KeptEventLog)
    assert storage.open_files <= event_log.KEPT


def test_what_another_process_wiped_is_not_written_to(
    kept: dg.DagsterInstance, tmp_path: Path
) -> None:
    gone = run(kept)
    with opened(tmp_path, kept=False) as stock:
        stock.wipe()
    assert events(kept, gone) == []
    again = run(kept)
    with opened(tmp_path, kept=False) as stock:
        assert events(stock, again) == events(kept, again) != []


def test_wiped_and_used_again(kept: dg.DagsterInstance) -> None:
    run(kept)
    kept.wipe()
    assert len(events(kept, run(kept))) > 3
