"""Dagster's SQLite storage with batches: the same books as without, whoever reads them."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from embedding_pipeline.defs import event_log
from embedding_pipeline.defs.compat import declaring, instance_ref, range_tags
from embedding_pipeline.defs.event_log import BatchedEventLog, stored_together

CUSTOM = {"module": "embedding_pipeline.defs.event_log", "class": "BatchedSqliteStorage"}
DAYS = dg.StaticPartitionsDefinition([f"2025-01-{day:02}" for day in range(1, 13)])
KEYS = DAYS.get_partition_keys()
BAD = KEYS[3]
CHECK = dg.AssetCheckKey(dg.AssetKey("thing"), "fine")

with declaring():

    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def thing(context: dg.AssetExecutionContext) -> dg.MaterializeResult:  # type: ignore[type-arg]
        for day in context.partition_keys:
            context.add_asset_metadata({"day": day}, partition_key=day)
        return dg.MaterializeResult(tags={"made": "here"})

    @dg.multi_asset_check(
        specs=[dg.AssetCheckSpec("fine", asset="thing", partitions_def=DAYS)], can_subset=True
    )
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        with stored_together(context.instance):
            for day in context.partition_keys:
                yield dg.AssetCheckEvaluation(
                    dg.AssetKey("thing"), "fine", passed=day != BAD, metadata={}, partition=day
                )
                if day == BAD:
                    context.log.info("a word in between")
        yield dg.Output(None, output_name="thing_fine")

    JOB = dg.Definitions(
        [thing], asset_checks=[checks], jobs=[dg.define_asset_job("all", [thing, checks])]
    ).resolve_job_def("all")


@contextmanager
def opened(home: Path, *, batched: bool) -> Iterator[dg.DagsterInstance]:
    """An instance on the files at ``home``, by our storage or by Dagster's own."""
    home.mkdir(exist_ok=True)
    here = {"base_dir": str(home)}
    storage = {"custom": {**CUSTOM, "config": here}} if batched else {"sqlite": here}
    ref = instance_ref(home, {"storage": storage, "telemetry": {"enabled": False}})
    with dg.DagsterInstance.from_ref(ref) as instance:
        yield instance


def run(instance: dg.DagsterInstance, first: str = KEYS[0], last: str = KEYS[-1]) -> str:
    done = JOB.execute_in_process(instance=instance, tags=range_tags(first, last))
    assert done.success
    return done.run_id


def told(instance: dg.DagsterInstance, run_id: str) -> list[tuple[Any, ...]]:
    """A run's log: what kind of event, of which partition, in order."""
    lines = []
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        said = event.event_specific_data if event else None
        partition = event.partition if event else None
        if isinstance(said, dg.AssetCheckEvaluation):
            partition = said.partition
        lines.append((event and event.event_type_value, partition, entry.step_key))
    return lines


def judged(record: Any) -> str:
    """The partition that a check's record is about."""
    evaluation = record.event.dagster_event.event_specific_data
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    return str(evaluation.partition)


def books(instance: dg.DagsterInstance, run_id: str) -> dict[str, object]:
    """Everything about the run that the UI and the daemon ask of the index."""
    storage = instance.event_log_storage
    [record] = instance.get_asset_records([thing.key])
    entry = record.asset_entry.last_materialization
    latest = entry and entry.asset_materialization
    made = instance.fetch_materializations(thing.key, limit=99).records
    found = storage.get_asset_check_execution_history(CHECK, limit=99)
    counts = storage.get_asset_check_partition_info([CHECK])
    return {
        "log": told(instance, run_id),
        "asset": (record.asset_entry.last_run_id == run_id, latest and latest.partition),
        "materialized": sorted(storage.get_materialized_partitions(thing.key)),
        "made": [
            (it.partition_key, it.run_id == run_id, dict(it.asset_materialization.metadata))
            for it in made
            if it.asset_materialization
        ],
        "checked": sorted((judged(it), it.status.value) for it in found),
        "info": sorted((it.partition_key, it.latest_execution_status.value) for it in counts),
        "runs": instance.get_run_record_by_id(run_id).dagster_run.status,  # type: ignore[union-attr]
    }


def test_a_range_run_leaves_the_books_that_dagsters_own_storage_leaves(tmp_path: Path) -> None:
    with opened(tmp_path / "a", batched=True) as ours, opened(tmp_path / "b", batched=False) as own:
        assert isinstance(ours.event_log_storage, BatchedEventLog)
        assert books(ours, run(ours)) == (expected := books(own, run(own)))
        assert len(expected["made"]) == len(expected["checked"]) == len(KEYS)  # type: ignore[arg-type]


def test_either_storage_goes_on_where_the_other_stopped(tmp_path: Path) -> None:
    with opened(tmp_path, batched=True) as ours, opened(tmp_path, batched=False) as own:
        for writer, reader in ((ours, own), (own, ours), (ours, own)):
            run_id = run(writer)
            assert books(writer, run_id) == books(reader, run_id)


def test_more_days_are_no_more_transactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transactions: list[str] = []
    connect = BatchedEventLog._connect

    def counting(self: BatchedEventLog, shard: str) -> Any:
        transactions.append(shard)
        return connect(self, shard)

    monkeypatch.setattr(BatchedEventLog, "_connect", counting)
    with opened(tmp_path, batched=True) as instance:
        run(instance, KEYS[0], KEYS[1])
        few = len(transactions)
        run(instance, KEYS[4], KEYS[-1])
        assert len(transactions) - few <= few


def test_a_batch_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "BATCH", 2)
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "2")
    with opened(tmp_path / "a", batched=True) as ours, opened(tmp_path / "b", batched=False) as own:
        assert books(ours, run(ours)) == books(own, run(own))


def test_what_was_said_before_an_error_is_written(tmp_path: Path) -> None:
    with opened(tmp_path, batched=True) as instance:
        event = dg.AssetMaterialization("thing", partition=KEYS[0])
        with suppress(ZeroDivisionError), stored_together(instance):
            instance.report_runless_asset_event(event)
            raise ZeroDivisionError
        assert instance.get_materialized_partitions(thing.key) == {KEYS[0]}
        instance.report_runless_asset_event(dg.AssetMaterialization("thing", partition=KEYS[1]))
        assert instance.get_materialized_partitions(thing.key) == {KEYS[0], KEYS[1]}
