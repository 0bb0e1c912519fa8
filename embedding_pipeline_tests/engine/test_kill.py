"""kill -9 at random moments: nothing lost, nothing mixed up, hardly anything paid twice."""

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
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
CHUNKS = 10_000
KILLS = 20


@pytest.fixture
def environment(
    tmp_path: Path,
    fake_openai_process: FakeProcess,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Mapping[str, str]:
    """Settings for this process and its children; requests of about 100 texts."""
    values = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": fake_openai_process.base_url,
        "EMBEDDING_PIPELINE_DATA_DIR": str(tmp_path / "data"),
        "EMBEDDING_PIPELINE_EMBEDDING__MODEL": f"openai/{MODEL}",
        "EMBEDDING_PIPELINE_REQUESTS__MAX_INPUTS": "100",
        "EMBEDDING_PIPELINE_LIMITS__MAX_IN_FLIGHT": "4",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


def _texts() -> list[str]:
    return [f"chunk {i}: the quick brown fox jumps over the lazy dog" for i in range(CHUNKS)]


def _start() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "embedding_pipeline_tests.engine.child", DAY]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() in ("embedding\n", "done\n")
    return child


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
    environment: Mapping[str, str],
    fake_openai_process: FakeProcess,  # noqa: F811
    tmp_path: Path,
) -> None:
    texts, datasets = _texts(), build_datasets(load_settings())
    write_deduped(datasets, DAY, texts)
    fake_openai_process.option(latency=0.15)
    moments = random.Random(20)
    in_flight = 0
    for _ in range(KILLS):
        child = _start()
        time.sleep(moments.uniform(0.0, 0.3))
        child.kill()
        child.communicate()
        in_flight += _claimed(tmp_path / "data" / "state.db")
        assert not datasets.embeddings(SPACE, DAY).exists()
    last = _start()
    last.communicate(timeout=120)
    assert last.returncode == 0

    books = fake_openai_process.books
    vectors = _vectors(datasets)
    assert len(vectors) == CHUNKS
    for number, text in enumerate(texts):
        expected = expected_vector(MODEL, text, 1536)
        assert np.array_equal(vectors[f"{number:08d}"], expected), f"chunk {number}"
    assert in_flight > 0, "no kill struck a request: the moments prove nothing"
    assert books.billed_twice <= in_flight
    assert _booked(tmp_path / "data" / "state.db") >= books.tokens, "a bill nobody booked"
    assert all(books.times_billed(text) >= 1 for text in texts)


def test_a_finished_run_makes_no_request(
    environment: Mapping[str, str],
    fake_openai_process: FakeProcess,  # noqa: F811
) -> None:
    write_deduped(build_datasets(load_settings()), DAY, _texts()[:500])
    for _ in range(2):
        child = _start()
        child.communicate(timeout=60)
        assert child.returncode == 0
    assert fake_openai_process.books.inputs == 500
