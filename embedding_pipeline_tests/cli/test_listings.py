"""``search``, ``costs`` and ``failed``: what they print, for people and for programs."""

import json
from pathlib import Path

import pytest

from embedding_pipeline_tests.cli.conftest import BUS, Expect, Folder


def test_search_finds_by_meaning(done: Folder) -> None:
    result = done.run("search", "read a day of the calendar out of some text", "-k", "2")
    assert result.returncode == 0, result.stderr
    header, first, _ = result.stdout.splitlines()
    assert header.split() == ["score", "chunk", "text"]
    assert first.endswith("How to parse a date.")


def test_search_as_json_has_whole_texts_and_one_hit_a_text(done: Folder) -> None:
    hits = done.json("search", BUS, "-k", "10")
    assert hits[0]["text"] == BUS
    assert hits[0]["score"] > 0.999
    assert hits[0]["date"] == "2026-01-01"
    assert len({hit["content_hash"] for hit in hits}) == len(hits) == 4


def test_search_before_anything_was_embedded(folder: Folder) -> None:
    result = folder.run("search", "anything")
    assert result.returncode == 0
    assert "no vectors yet" in result.stdout
    assert not (folder.path / ".embedding_pipeline").exists()


def test_costs_by_day(done: Folder) -> None:
    rows = done.json("costs", "--by", "date", "--start", "2026-01-01")
    assert [row["date"] for row in rows] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert [row["chunks"] for row in rows] == [3, 2, 1]
    assert all(row["cost_nano_usd"] == 0 for row in rows)
    assert rows[0]["requests"] >= 1
    assert rows[2]["requests"] == 0, "the bus was embedded on the first day"


def test_costs_by_source_tell_what_was_not_embedded(done: Folder) -> None:
    rows = {row["source"]: row["chunks"] for row in done.json("costs", "--by", "source")}
    assert rows == {"local": 4, "duplicate": 1, "cache": 1}


def test_costs_for_people(done: Folder) -> None:
    header, first, *_ = done.run("costs", "--end", "2026-01-01").stdout.splitlines()
    assert header.split()[:3] == ["date", "project", "chunks"]
    assert first.split()[:3] == ["2026-01-01", "tests", "3"]


def test_costs_by_model_and_by_the_day_of_spending(done: Folder) -> None:
    (row,) = done.json("costs", "--by", "model")
    assert row["model"] == "local/use-multilingual-v3"
    assert row["chunks"] == 6
    rows = done.json("costs", "--by", "spent")  # two, if it was midnight
    assert rows[0]["spent"] > "2026-01-03", "not the partition's day"
    assert "chunks" not in rows[0]
    assert sum(row["requests"] for row in rows) >= 1
    assert done.json("costs", "--by", "spent", "--end", "2026-01-03") == []


def test_costs_as_csv(done: Folder) -> None:
    lines = done.run("costs", "--by", "project", "--by", "source", "--csv").stdout.splitlines()
    assert lines[0].startswith("project,source,chunks,requests,input_tokens,cost_nano_usd")
    assert any(line.startswith("tests,cache,1,0,") for line in lines)


def test_the_report_is_written_where_it_says(done: Folder) -> None:
    result = done.run("costs", "--report")
    assert result.returncode == 0, result.stderr
    page = Path(result.stdout.splitlines()[-1])
    assert page.is_relative_to(done.path)
    assert "Costs of embedding" in page.read_text()


def test_costs_before_anything_was_spent(folder: Folder) -> None:
    assert folder.run("costs").stdout == "Nothing was spent yet.\n"
    assert folder.json("costs") == []
    assert not (folder.path / ".embedding_pipeline").exists()


def test_failed_lists_what_is_in_quarantine(done: Folder) -> None:
    (row,) = done.json("failed", "list")
    assert row["chunk_id"] == "2026-01-03-1"
    assert row["date"] == "2026-01-03"
    assert row["project"] == "tests"
    assert row["reason"]
    assert done.json("failed", "list", "--partition", "2026-01-01") == []


def test_redrive_says_what_to_run(done: Folder) -> None:
    result = done.run("failed", "redrive", "2026-01-03-1")
    assert result.returncode == 0, result.stderr
    assert "backfill --start 2026-01-03 --end 2026-01-03 --assets embeddings,cost_summary" in (
        result.stdout
    )


def test_redrive_of_nothing(done: Folder, folder: Folder, refused: Expect) -> None:
    refused(done.run("failed", "redrive"), 2)
    assert "No failed chunk" in done.run("failed", "redrive", "no-such-chunk").stdout
    assert "No failed chunk" in folder.run("failed", "redrive", "--all").stdout


def test_budget_without_any(folder: Folder) -> None:
    assert folder.run("budget").stdout == "No budget is set.\n"
    assert folder.json("budget") == {"budgets": [], "deferred": []}


def test_budget_before_anything_was_spent(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets = [{"scope": "project:x", "period": "total", "limit_usd": 1.5}]
    monkeypatch.setenv("EMBEDDING_PIPELINE_BUDGETS", json.dumps(budgets))
    (row,) = folder.json("budget")["budgets"]
    assert row["limit_nano_usd"] == row["left_nano_usd"] == 1_500_000_000
    assert (row["spent_nano_usd"], row["projected_nano_usd"], row["resets"]) == (0, None, None)
    header, line = folder.run("budget").stdout.splitlines()
    assert header.split()[:4] == ["scope", "period", "limit", "spent"]
    assert line.split() == ["project:x", "total", "$1.50", "$0.00", "$0.00", "$1.50", "–", "never"]
    assert not (folder.path / ".embedding_pipeline").exists()
