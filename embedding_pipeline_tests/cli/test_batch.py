"""``embedding-pipeline batch``: sending, looking, collecting, ending, and what comes of it."""

from pathlib import Path
from typing import Any

import pytest

from embedding_pipeline_tests.cli.conftest import BUS, FILES, Expect, Folder
from embedding_pipeline_tests.cli.inside import InsideFolder
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY

DAYS = ("2026-01-01", "2026-01-02")
RANGE = ("--start", DAYS[0], "--end", DAYS[1])
FOR_EVER = 1_000_000
MODEL = {"model": "openai/text-embedding-3-small"}


@pytest.fixture
def api(
    fake_openai_process: FakeProcess,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> FakeProcess:
    """A provider whose batches end when they are told to."""
    monkeypatch.setenv("OPENAI_BASE_URL", fake_openai_process.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    fake_openai_process.batch_option(polls=FOR_EVER)
    return fake_openai_process


@pytest.fixture
def folder(tmp_path: Path, api: FakeProcess) -> Folder:
    """Two days of five texts, one of them on both days."""
    made = InsideFolder(tmp_path).settings(**FILES, embedding=MODEL, batch_api="on")
    made.rows(DAYS[0], "The cat sleeps on the sofa.", "How to parse a date.", BUS)
    made.rows(DAYS[1], BUS, "Stocks fell on Monday.", "Nothing new.")
    return made


def only(rows: Any) -> Any:
    (row,) = rows
    return row


def test_what_is_submitted_is_listed_collected_and_there_for_the_run(
    folder: Folder, api: FakeProcess
) -> None:
    assert folder.json("plan", *RANGE)["way"] == "batch"
    assert "through the Batch API: batch_api is on." in folder.run("plan", *RANGE).stdout
    sent = folder.json("batch", "submit", *RANGE)
    assert (sent["files"], sent["texts"], sent["elsewhere"]) == (1, 5, 1)
    assert folder.json("batch", "submit", *RANGE)["files"] == 0, "it is on its way"
    row = only(folder.json("batch", "list"))
    assert (row["state"], row["status"], row["inputs"]) == ("submitted", "in_progress", 5)
    assert row["days"] == list(DAYS)
    assert "in_progress" in folder.run("batch", "list").stdout
    assert only(folder.json("batch", "collect")["left"])["id"] == row["id"]
    api.batch_option(polls=0)
    assert folder.json("batch", "collect", "--wait") == {"left": [], "ready": [], "strange": []}
    assert folder.run("batch", "list").stdout == "No batch is under way.\n"
    done = only(folder.json("batch", "list", "--all"))
    assert (done["state"], done["billed_tokens"]) == ("done", api.books.tokens)
    assert api.batches["files"] == 0
    assert folder.json("plan", *RANGE)["cached"] == 6
    assert api.books.requests == 1


def test_warming_goes_the_same_way(folder: Folder, api: FakeProcess) -> None:
    warmed = folder.json("cache", "warm", *RANGE, "--yes")
    assert warmed["plan"]["cost_nano_usd"] == 10 * warmed["plan"]["input_tokens"]
    assert (warmed["done"]["embedded"], warmed["done"]["in_batches"]) == (0, 6)
    (folder.path / "texts.txt").write_text("One more.\nAnd another.\n")
    said = folder.run("cache", "warm", "--texts", "texts.txt", "--yes").stdout
    assert "2 are in batches" in said
    assert len(folder.json("batch", "list")) == 2
    api.batch_option(polls=0)
    assert folder.run("batch", "collect", "--wait").returncode == 0
    assert folder.json("cache", "warm", *RANGE, "--yes")["done"]["cached"] == 6


def test_days_that_waited_are_made_by_a_poll_loop(folder: Folder, api: FakeProcess) -> None:
    made = folder.json("backfill", *RANGE, "--wait")
    assert (made["success"], made["embedded"], made["deferred"]) == (True, 0, 6)
    api.batch_option(polls=1)
    found = folder.run("batch", "collect", "--wait", "--run", "--every", "0.1")
    assert (found.returncode, found.stdout) == (0, "No batch is under way.\n")
    assert folder.json("failed", "deferred") == []
    assert (api.books.requests, api.books.billed_twice) == (1, 0)
    again = folder.json("batch", "collect")
    assert again["ready"] == []


def test_a_batch_is_ended_by_the_beginning_of_its_id(
    folder: Folder, api: FakeProcess, refused: Expect
) -> None:
    name = only(folder.json("batch", "submit", *RANGE)["ids"])
    assert "fits no submission" in refused(folder.run("batch", "cancel", "zzz"), 2)
    assert "name batches" in refused(folder.run("batch", "cancel"), 2)
    assert only(folder.json("batch", "cancel", name[:6]))["status"] == "cancelling"
    assert folder.json("batch", "collect", "--wait")["left"] == []
    assert folder.json("plan", *RANGE)["cached"] in (2, 3), "half of it was done"
    assert folder.json("batch", "cancel", "--all") == []


def test_a_model_without_a_batch_api(tmp_path: Path, api: FakeProcess, refused: Expect) -> None:
    local = InsideFolder(tmp_path).settings(**FILES)
    local.rows(DAYS[0], BUS)
    told = refused(local.run("batch", "submit", "--start", DAYS[0], "--end", DAYS[0]), 2)
    assert "has no Batch API" in told
    assert local.json("batch", "list") == []
    assert local.json("batch", "collect")["left"] == []
