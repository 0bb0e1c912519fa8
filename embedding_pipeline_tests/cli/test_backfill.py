"""``backfill``: what it makes, what it says, and how it ends."""

import json
import signal
import time
from typing import Any

import pytest

from embedding_pipeline_tests.cli.conftest import FILES, SECONDS, Folder
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY

RANGE = ("backfill", "--start", "2026-01-01", "--end", "2026-01-03")


@pytest.fixture
def at_openai(folder: Folder, fake_openai_process: FakeProcess) -> dict[str, str]:  # noqa: F811
    """Three days of texts, and the environment of a user of the API."""
    folder.settings(**FILES, embedding={"model": "openai/text-embedding-3-small"})
    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        folder.rows(day, "the same on every day", f"only on {day}", f"ONLY on  {day}")
    return {"OPENAI_BASE_URL": fake_openai_process.base_url, "OPENAI_API_KEY": KEY}


def test_the_counts_are_told_and_a_second_run_pays_nothing(
    outside: Folder,
    at_openai: dict[str, str],
    fake_openai_process: FakeProcess,  # noqa: F811
) -> None:
    first = outside.run(*RANGE, "--wait", "--json", **at_openai)
    assert first.returncode == 0, first.stderr
    told: dict[str, Any] = json.loads(first.stdout)
    assert told["success"]
    assert told["embedded"] == 4
    assert [day["chunks"] for day in told["days"]] == [3, 3, 3]
    assert [day["duplicates"] for day in told["days"]] == [1, 1, 1]
    assert [day["vectors"] for day in told["days"]] == [2, 2, 2]
    books = fake_openai_process.books
    assert told["input_tokens"] == books.tokens
    assert told["cost_nano_usd"] == books.tokens * 20

    again = outside.run(*RANGE, "--wait", **at_openai)
    assert again.returncode == 0, again.stderr
    assert "3 of 3 days are done. 0 texts embedded in 0 requests" in again.stdout
    assert fake_openai_process.books.tokens == books.tokens


def test_runs_are_cut_as_asked_and_assets_chosen(folder: Folder, at_openai: dict[str, str]) -> None:
    result = folder.run(
        *RANGE, "--wait", "--partitions-per-run", "2", "--assets", "raw_chunks", **at_openai
    )
    assert result.returncode == 0, result.stderr
    assert "2026-01-01 to 2026-01-02 (2 days): 2 of 2 done" in result.stderr
    assert "2026-01-03: 1 of 1 done" in result.stderr
    assert sorted(path.name for path in (folder.path / ".embedding_pipeline").glob("*_chunks")) == [
        "raw_chunks"
    ]


def test_a_day_that_fails_is_named_and_the_others_are_made(
    folder: Folder, at_openai: dict[str, str]
) -> None:
    broken = folder.path / "data" / "2026-01-02.jsonl"
    broken.unlink()
    broken.mkdir()
    result = folder.run(*RANGE, "--wait", **at_openai)
    assert result.returncode == 1
    assert "failed: 2026-01-02:" in result.stderr
    assert "Traceback" not in result.stderr
    assert "2 of 3 days are done" in result.stdout


def test_days_that_lack_nothing_but_money_end_it_with_the_code_of_a_budget(
    folder: Folder, at_openai: dict[str, str]
) -> None:
    model = {"model": "openai/text-embedding-3-small"}
    nothing = [{"scope": "all", "period": "total", "limit_usd": 0}]
    folder.settings(**FILES, embedding=model, budgets=nothing)
    result = folder.run(*RANGE, "--wait", **at_openai)
    assert result.returncode == 7, result.stderr
    assert "failed: 2026-01-01: check within_budget: 2 chunks" in result.stderr


def test_without_wait_the_work_goes_on_in_the_background(
    outside: Folder, at_openai: dict[str, str]
) -> None:
    result = outside.run(*RANGE, **at_openai)
    assert result.returncode == 0, result.stderr
    assert "Started as process" in result.stdout
    log = outside.path / ".embedding_pipeline" / "logs" / "backfill.log"
    deadline = time.monotonic() + SECONDS
    while "days are done" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "3 of 3 days are done" in log.read_text()


def test_ctrl_c_ends_it_with_one_line_and_what_is_finished_is_kept(
    folder: Folder,
    at_openai: dict[str, str],
    fake_openai_process: FakeProcess,  # noqa: F811
) -> None:
    fake_openai_process.option(latency=600.0)
    with folder.start(*RANGE, "--wait", **at_openai) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if line.startswith("0 of "):
                break
        deadline = time.monotonic() + SECONDS
        while fake_openai_process.books.in_flight == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert fake_openai_process.books.in_flight > 0
        running.send_signal(signal.SIGINT)
        told = running.stderr.read()
        assert running.wait(600) == 130
    assert told.splitlines()[-1].startswith("Interrupted.")
    assert "Traceback" not in told
    assert len(list((folder.path / ".embedding_pipeline" / "deduped_chunks").iterdir())) == 3
