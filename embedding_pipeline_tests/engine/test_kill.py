"""kill -9 at random moments: nothing lost, nothing mixed up, hardly anything paid twice."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.records import Space
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline_tests.engine.chunks import write_deduped
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.replies import expected_vector
from embedding_pipeline_tests.fake_openai.server import KEY

MODEL = "text-embedding-3-small"
SPACE = Space("openai", MODEL, "", 1536)
DAY = "2026-01-01"
CHUNKS = 5_000
KILLS = 20


@pytest.fixture
def environment(
    tmp_path: Path,
    fake_openai_process: FakeProcess,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Mapping[str, str]:
    """Settings for this process and its children; requests of 25 texts."""
    values = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": fake_openai_process.base_url,
        "EMBEDDING_PIPELINE_DATA_DIR": str(tmp_path / "data"),
        "EMBEDDING_PIPELINE_EMBEDDING__MODEL": f"openai/{MODEL}",
        "EMBEDDING_PIPELINE_REQUESTS__MAX_INPUTS": "25",
        "EMBEDDING_PIPELINE_LIMITS__MAX_IN_FLIGHT": "4",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


def _texts() -> list[str]:
    return [f"chunk {i}: the quick brown fox jumps over the lazy dog" for i in range(CHUNKS)]


class Nursery:
    """Starts runs of the day, one at a time, and says how each began and ended."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def start(self) -> int:
        """The number of one more process."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self.says())

    def says(self) -> str:
        """The next line."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self, pid: int) -> None:
        """SIGKILL it, and wait for its end; it may have ended by itself."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        while not self.says().startswith("ended"):
            pass


@pytest.fixture
def nursery(environment: Mapping[str, str]) -> Iterator[Nursery]:
    """Runs with these settings."""
    command = [sys.executable, "-m", "embedding_pipeline_tests.engine.child", DAY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Nursery(process)


def _claimed(state: Path) -> int:
    """Texts in flight: what the process that was killed had claimed."""
    with closing(sqlite3.connect(state)) as connection:
        return int(connection.execute("SELECT count(*) FROM claims").fetchone()[0])


def _booked(state: Path) -> int:
    """Tokens in the ledger, settled and unknown."""
    with closing(sqlite3.connect(state)) as connection:
        return int(connection.execute("SELECT sum(tokens) FROM ledger").fetchone()[0])


def _vectors(datasets: Datasets) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for batch in datasets.embeddings(SPACE, DAY).iter_batches():
        rows = matrix_of(batch.column("vector"))
        found.update(zip(batch.column("chunk_id").to_pylist(), rows, strict=True))
    return found


def test_twenty_kills_lose_nothing_and_pay_twice_at_most_what_was_in_flight(
    nursery: Nursery,
    fake_openai_process: FakeProcess,  # noqa: F811
    tmp_path: Path,
) -> None:
    texts, datasets, api = _texts(), build_datasets(load_settings()), fake_openai_process
    write_deduped(datasets, DAY, texts)
    state, moments = tmp_path / "data" / "state.db", random.Random(20)
    in_flight = _killed_with_requests_out(nursery, api, state)
    api.option(latency=0.15)
    for _ in range(KILLS - 1):
        pid = nursery.start()
        nursery.says()
        time.sleep(moments.uniform(0.0, 0.3))
        nursery.kill(pid)
        in_flight += _claimed(state)
        file = datasets.embeddings(SPACE, DAY)
        assert not file.exists() or file.rows() == CHUNKS, "half a day can be seen"
    api.option(latency=0.0)
    _run_to_the_end(nursery)

    books = api.books
    vectors = _vectors(datasets)
    assert len(vectors) == CHUNKS
    for number, text in enumerate(texts):
        expected = expected_vector(MODEL, text, 1536)
        assert np.array_equal(vectors[f"{number:08d}"], expected), f"chunk {number}"
    assert books.billed_twice <= in_flight
    assert _booked(state) >= books.tokens, "a bill nobody booked"
    assert all(books.times_billed(text) >= 1 for text in texts)

    _run_to_the_end(nursery)
    assert api.books.requests == books.requests, "a finished run makes no request"


def _killed_with_requests_out(nursery: Nursery, api: FakeProcess, state: Path) -> int:
    """Kill a run while the API holds its answers back; how many texts it had asked for."""
    api.option(latency=600.0)
    pid = nursery.start()
    deadline = time.monotonic() + 600
    while not api.books.in_flight and time.monotonic() < deadline:
        time.sleep(0.01)
    nursery.kill(pid)
    claimed = _claimed(state)
    assert claimed > 0
    return claimed


def _run_to_the_end(nursery: Nursery) -> None:
    nursery.start()
    said = [nursery.says()]
    while not said[-1].startswith("ended"):
        said.append(nursery.says())
    assert said[-2:] == ["done", "ended 0"]
