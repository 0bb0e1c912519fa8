"""Copies of earlier days in Dagster: which days depend on which, and what the UI shows."""

import json

import dagster as dg
import pytest

from embedding_pipeline.definitions import defs
from embedding_pipeline_tests.defs.books import check_statuses, figures, materializations
from embedding_pipeline_tests.defs.conftest import DAYS, Project

WORDS = [f"word{number}" for number in range(60)]
ROWS = 4


@pytest.fixture
def weekly(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Every day has the same long text with another ending, its copy, and two of its own."""
    monkeypatch.setenv("EMBEDDING_PIPELINE_DEDUP__SCOPE_DAYS", "2")
    for number, day in enumerate(DAYS):
        long = " ".join([*WORDS, f"on day {number}"])
        texts = [long, long.upper(), f"{day} a text", f"{day} another text"]
        rows = [{"id": f"{day}-{n}", "text": text} for n, text in enumerate(texts)]
        common = {"document_id": "doc", "project": "docs"}
        lines = (json.dumps(row | common) + "\n" for row in rows)
        project.source(day).write_text("".join(lines))
    return project


def account(instance: dg.DagsterInstance, day: str) -> list[str]:
    return check_statuses(instance, "embeddings", "every_chunk_accounted_for")[day]


def test_a_days_copies_are_of_its_own_chunks_and_of_those_in_scope(weekly: Project) -> None:
    specs = {spec.key.to_user_string(): spec for spec in defs().resolve_all_asset_specs()}
    for name in ("deduped_chunks", "duplicate_chunks"):
        (dependency,) = specs[name].deps
        mapping = dependency.partition_mapping
        assert isinstance(mapping, dg.TimeWindowPartitionMapping)
        assert (mapping.start_offset, mapping.end_offset) == (-2, 0)


def test_a_range_pays_the_long_text_once_and_the_books_balance(
    weekly: Project, instance: dg.DagsterInstance
) -> None:
    assert weekly.run(instance, *DAYS[:3]).success
    copies = {
        day: events[0] for day, events in materializations(instance, "duplicate_chunks").items()
    }
    shown = {day: figures(event) for day, event in copies.items()}
    assert [shown[day]["rows_near"] for day in DAYS[:3]] == [0, 2, 2]
    assert [shown[day]["rows_normalized"] for day in DAYS[:3]] == [1, 0, 0]
    assert [shown[day]["rows_of_earlier_days"] for day in DAYS[:3]] == [0, 2, 2]
    kept = figures(materializations(instance, "deduped_chunks")[DAYS[1]][0])
    assert kept["duplicate_ratio"] == 0.5
    assert kept["saved_usd"] == pytest.approx(kept["tokens_saved"] * 20e-9)
    largest = copies[DAYS[1]].metadata["largest_clusters"]
    assert isinstance(largest, dg.TableMetadataValue)
    assert [dict(record.data) for record in largest.records] == [
        {"representative_id": f"{DAYS[0]}-0", "representative_date": DAYS[0], "chunks": 2}
    ]
    assert all(account(instance, day) == ["SUCCEEDED"] for day in DAYS[:3])
    sources = [
        row for b in weekly.datasets.cost_summary(DAYS[1]).iter_batches() for row in b.to_pylist()
    ]
    assert {row["source"]: row["chunks"] for row in sources} == {"api": 2, "duplicate": 2}


def test_a_day_made_before_the_one_it_copies_warns_until_that_is_there(
    weekly: Project, instance: dg.DagsterInstance
) -> None:
    for day in DAYS[:2]:
        weekly.run(instance, day, assets=["raw_chunks"])
    rest = ["deduped_chunks", "duplicate_chunks", "embeddings", "cost_summary"]
    assert weekly.run(instance, DAYS[1], assets=rest).success
    assert account(instance, DAYS[1]) == ["FAILED"]
    assert DAYS[1] in materializations(instance, "cost_summary"), "a warning stops nothing"
    assert weekly.run(instance, DAYS[0], assets=rest).success
    assert weekly.run(instance, DAYS[1], assets=rest).success
    assert account(instance, DAYS[1])[0] == "SUCCEEDED"


def test_a_day_in_scope_that_has_no_chunks_is_named(
    weekly: Project, instance: dg.DagsterInstance
) -> None:
    some = ["raw_chunks", "deduped_chunks", "duplicate_chunks"]
    assert weekly.run(instance, DAYS[1], assets=some).success
    event = materializations(instance, "duplicate_chunks")[DAYS[1]][0]
    said = str(event.metadata["not_looked_at"].value)
    assert said.startswith(f"raw_chunks of {DAYS[0]} is not made"), (
        "days before the first do not count"
    )
