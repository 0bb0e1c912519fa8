"""One day and a range of days in one run: events, metadata, tags and checks by partition."""

import dagster as dg
import pyarrow.parquet as pq
import pytest

from embedding_pipeline_tests.defs.books import (
    CHECKS,
    check_statuses,
    figures,
    materializations,
    run_status,
)
from embedding_pipeline_tests.defs.conftest import DAYS, DISTINCT, ROWS, Project

ASSETS = ("raw_chunks", "deduped_chunks", "duplicate_chunks", "embeddings", "cost_summary")
ROWS_OF = dict(zip(ASSETS, (ROWS, DISTINCT, ROWS - DISTINCT, DISTINCT, 2), strict=True))


@pytest.mark.parametrize("days", [DAYS[:1], DAYS[:3]], ids=["one day", "a range"])
def test_each_partition_has_its_own_event_with_its_own_figures(
    project: Project, instance: dg.DagsterInstance, days: tuple[str, ...]
) -> None:
    result = project.run(instance, *days)
    assert result.success
    for asset in ASSETS:
        events = materializations(instance, asset)
        assert sorted(events) == list(days), asset
        for day in days:
            (event,) = events[day]
            assert figures(event)["rows"] == ROWS_OF[asset]
            assert figures(event)["dagster/partition_row_count"] == ROWS_OF[asset]
            schema = event.metadata["dagster/column_schema"]
            assert isinstance(schema, dg.TableSchemaMetadataValue)
            assert all(column.description for column in schema.schema.columns), schema


def test_what_the_embeddings_cost_is_plotted_by_partition(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.run(instance, *DAYS[:2])
    project.run(instance, DAYS[0])
    events = materializations(instance, "embeddings")
    again, first = (figures(event) for event in events[DAYS[0]])
    assert (first["embedded"], first["cached"], first["cache_hit_ratio"]) == (DISTINCT, 0, 0.0)
    assert (again["embedded"], again["cached"], again["cache_hit_ratio"]) == (0, DISTINCT, 1.0)
    assert first["cost_usd"] == pytest.approx(first["tokens"] * 20e-9)
    assert first["tokens"] > 0
    assert again["cost_usd"] == 0
    assert {"seconds", "requests", "retries", "saved_usd", "dimensions"} <= set(first)
    assert project.api.books.billed_twice == 0


def test_the_shared_rate_limit_is_in_the_metadata(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.api.limit(rpm=500, tpm=1_000_000)
    project.run(instance, DAYS[0])
    project.run(instance, DAYS[1])
    (event,) = materializations(instance, "embeddings")[DAYS[1]]
    assert figures(event)["rate_limit_429s"] == 0
    assert figures(event)["rate_limit_tokens_per_minute"] == 1_000_000
    table = event.metadata["rate_limits"].value
    assert isinstance(table, str)
    assert "500 of 500 requests a minute" in table
    assert "| docs | normal | 1 |" in table, "of this run, not of the one before"


def test_provenance_is_in_the_tags(project: Project, instance: dg.DagsterInstance) -> None:
    project.run(instance, *DAYS[:2])
    for day in DAYS[:2]:
        (event,) = materializations(instance, "embeddings")[day]
        tags = event.tags or {}
        assert tags["embedding_pipeline/space"] == "openai-text-embedding-3-small-1536"
        assert tags["embedding_pipeline/dimensions"] == "64"
        assert len(tags["embedding_pipeline/fingerprint"]) == 16


def test_a_preview_shows_a_few_rows_and_no_text_reaches_the_event_log(
    project: Project, instance: dg.DagsterInstance
) -> None:
    secret = '{"id": "long", "text": "a secret that no log may hold"}\n'
    project.source(DAYS[0]).write_text(secret + project.source(DAYS[0]).read_text())
    run = project.run(instance, DAYS[0], assets=["raw_chunks", "deduped_chunks", "embeddings"])
    (raw,) = materializations(instance, "raw_chunks")[DAYS[0]]
    preview = raw.metadata["preview"]
    assert isinstance(preview, dg.TableMetadataValue)
    assert len(preview.records) == 5
    assert preview.records[0].data["chunk_id"] == "long"
    log = [dg.serialize_value(entry) for entry in instance.all_logs(run.run_id)]
    assert len(log) > 10
    assert not any("a secret that no log may hold" in entry for entry in log)
    (vectors,) = materializations(instance, "embeddings")[DAYS[0]]
    shown = vectors.metadata["preview"]
    assert isinstance(shown, dg.TableMetadataValue)
    assert set(shown.records[0].data) == {"chunk_id", "document_id", "project", "content_hash"}


def test_rejected_rows_are_named(project: Project, instance: dg.DagsterInstance) -> None:
    with project.source(DAYS[0]).open("a") as file:
        file.write('{"id": "no-text"}\n')
    project.run(instance, DAYS[0], assets=["raw_chunks"])
    (event,) = materializations(instance, "raw_chunks")[DAYS[0]]
    assert figures(event)["rejected"] == 1
    assert figures(event)["rows"] == ROWS
    examples = event.metadata["rejected_examples"]
    assert isinstance(examples, dg.MarkdownMetadataValue)
    assert f"{DAYS[0]}.jsonl" in str(examples.value)


@pytest.mark.parametrize("days", [DAYS[:1], DAYS[:3]], ids=["one day", "a range"])
def test_each_partition_has_its_own_verdict_of_each_check(
    project: Project, instance: dg.DagsterInstance, days: tuple[str, ...]
) -> None:
    project.run(instance, *days)
    for asset, names in CHECKS.items():
        for name in names:
            statuses = check_statuses(instance, asset, name)
            assert statuses == {day: ["SUCCEEDED"] for day in days}, name


def test_the_verdict_points_at_what_it_judged(
    project: Project, instance: dg.DagsterInstance
) -> None:
    result = project.run(instance, *DAYS[:2])
    by_day = {
        record.partition_key: record.storage_id
        for record in instance.fetch_materializations(dg.AssetKey("embeddings"), limit=9).records
    }
    targets = {
        evaluation.partition: evaluation.target_materialization_data
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name == "single_space"
    }
    assert {day: target.storage_id for day, target in targets.items() if target} == by_day


def test_the_files_are_what_the_events_say(project: Project, instance: dg.DagsterInstance) -> None:
    project.run(instance, *DAYS)
    (event,) = materializations(instance, "embeddings")[DAYS[3]]
    path = event.metadata["path"].value
    assert pq.read_metadata(path).num_rows == DISTINCT
    assert "fixed_size_list<element: float not null>[64]" in str(event.metadata)


def test_an_asset_that_was_made_but_not_asked_for_has_its_event_too(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.run(instance, *DAYS[:2], assets=["raw_chunks", "deduped_chunks"])
    assert sorted(materializations(instance, "duplicate_chunks")) == list(DAYS[:2])


def test_a_day_without_data_is_an_empty_partition(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.source(DAYS[0]).unlink()
    result = project.run(instance, *DAYS[:2])
    assert result.success
    (event,) = materializations(instance, "embeddings")[DAYS[0]]
    assert figures(event)["rows"] == 0
    assert run_status(instance, result.run_id) == "SUCCESS"
