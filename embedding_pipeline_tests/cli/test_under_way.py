"""``doctor`` on workers and batches: who answers, what waits, and what to do about it."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from embedding_pipeline.cli.findings import Status
from embedding_pipeline.cli.under_way import counted, workers_finding
from embedding_pipeline.defs.workers import find_workers, tally
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline_tests.cli.conftest import BUS, FILES, Expect, Folder
from embedding_pipeline_tests.cli.inside import InsideFolder
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY
from embedding_pipeline_tests.servers import await_ready, redis_in, running, server_folder

DAY = "2026-01-01"
DAYS = ("--start", DAY, "--end", DAY)
LAUNCHER = """
run_launcher:
  module: embedding_pipeline.defs.celery_launcher
  class: WatchedCeleryRunLauncher
  config: {default_queue: runs, broker: {env: DAGSTER_BROKER_URL}}
"""
WORKER = "from celery import Celery; app = Celery(broker={broker!r}, set_as_current=False)"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An instance whose runs go to workers."""
    (tmp_path / "dagster.yaml").write_text(LAUNCHER)
    return tmp_path


def test_runs_that_need_no_workers_have_none(tmp_path: Path) -> None:
    assert find_workers(tmp_path) is None
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert find_workers(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run_launcher: {module: nowhere.launcher, class: X}", "import module nowhere.launcher"),
        (LAUNCHER, "DAGSTER_BROKER_URL"),
        ("run_launcher: [", "expected the node content"),
    ],
    ids=["not installed", "no variable", "no YAML"],
)
def test_a_launcher_that_cannot_be_made_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "dagster.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        find_workers(tmp_path)
    assert "install what it needs" in str(caught.value)


def test_a_broker_that_is_away_is_named_without_its_password(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_BROKER_URL", "redis://:geheim@127.0.0.1:9/0")
    found = find_workers(home, 0.1)
    assert found is not None
    told = workers_finding(found)
    assert (told.status, "DAGSTER_BROKER_URL" in told.remedy) == (Status.FAIL, True)
    assert "127.0.0.1:9" in told.message
    assert "geheim" not in told.message


def test_workers_are_asked_and_counted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with server_folder() as place, redis_in(place) as url:
        broker = url.replace("unix://", "redis+socket://")
        monkeypatch.setenv("DAGSTER_BROKER_URL", broker)
        nobody = find_workers(home, 0.1)
        assert nobody is not None
        told = workers_finding(nobody)
        assert (told.status, "celery -A" in told.remedy) == (Status.FAIL, True)
        (place / "small.py").write_text(WORKER.format(broker=broker))
        log = place / "worker.log"
        command = [sys.executable, "-m", "celery", f"--workdir={place}", "-A", "small", "worker"]
        command += ["--pool=solo", "-Q", "runs", "--without-gossip", "--without-mingle"]
        with running([*command, "--loglevel=info"], log, signal.SIGTERM) as worker:
            await_ready(lambda: b" ready." in log.read_bytes(), worker, log)
            deadline, patience = time.monotonic() + 600, 0.5
            while not (found := find_workers(home, patience)) or not found.serving:
                assert time.monotonic() < deadline, log.read_text()
                patience = min(2 * patience, 30)
        told = workers_finding(found)
    assert (told.status, told.message) == (Status.OK, "1 worker of queue runs takes runs")


def test_a_worker_of_another_queue_is_no_help() -> None:
    found = tally("redis://x//", "runs", {"a@x": [{"name": "celery"}], "b@x": [{"name": "other"}]})
    told = workers_finding(found)
    assert told.status is Status.FAIL
    assert "no worker of queue runs; 2 workers of other queues" in told.message


def test_things_are_counted_in_words() -> None:
    assert [counted(n, "job") for n in (0, 1, 3000)] == ["0 jobs", "1 job", "3,000 jobs"]
    assert counted(2, "batch", "batches") == "2 batches"


@pytest.fixture
def sent(
    tmp_path: Path,
    fake_openai_process: FakeProcess,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Folder:
    """A day whose texts are in a batch that goes on for ever."""
    monkeypatch.setenv("OPENAI_BASE_URL", fake_openai_process.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    fake_openai_process.batch_option(polls=1_000_000)
    made = InsideFolder(tmp_path)
    model = {"model": "openai/text-embedding-3-small"}
    made.settings(**FILES, embedding=model, batch_api="on").rows(DAY, "The cat sleeps.", BUS)
    assert made.json("batch", "submit", *DAYS)["files"] == 1
    return made


def _batches(folder: Folder) -> dict[str, str]:
    found = json.loads(folder.run("doctor", "--json").stdout)
    return next(one for one in found if one["subject"] == "batches")


def test_a_batch_of_another_account_is_told_and_forgotten(
    sent: Folder, monkeypatch: pytest.MonkeyPatch, refused: Expect
) -> None:
    told = _batches(sent)
    assert (told["status"], told["message"]) == ("ok", "1 batch under way, 2 texts")
    monkeypatch.setenv("OTHER_KEY", KEY)
    other = [{"name": "openai", "kind": "openai", "api_key_env": "OTHER_KEY"}]
    model = {"model": "openai/text-embedding-3-small"}
    sent.settings(**FILES, embedding=model, batch_api="on", providers=other)
    told = _batches(sent)
    assert told["status"] == "warn"
    assert "OPENAI_API_KEY" in told["message"]
    name = told["remedy"].rpartition(" ")[2]
    assert "add --yes" in refused(sent.run("batch", "forget", name), 2)
    (row,) = sent.json("batch", "forget", name, "--yes")
    assert (row["state"], row["freed"], row["unknown"]) == ("done", 2, 2)
    assert "fits no submission" in refused(sent.run("batch", "forget", name, "--yes"), 2)
    assert _batches(sent)["status"] == "ok"
    assert sent.json("batch", "submit", *DAYS)["texts"] == 2, "free again"
