"""Four processes want the same texts at once: each is paid once, even when one is killed.

The short form runs always; ``CACHE_PROOF_TEXTS=5000`` is the long one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from embedding_pipeline.ledger import queries
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.engine.sharing import MODEL
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY
from embedding_pipeline_tests.servers import (  # noqa: F401 - fixtures
    postgres_server,
    postgres_url,
    redis_server,
    redis_url,
)

PROCESSES = 4
TEXTS = int(os.environ.get("CACHE_PROOF_TEXTS", "400"))
MAX_INPUTS, IN_FLIGHT = 25, 4
PRICE = 20


@pytest.fixture(params=["sqlite", "postgres", "postgres and redis"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Mapping[str, str]:
    """Where the processes meet."""
    if request.param == "sqlite":
        return {"STATE_URL": f"sqlite:///{tmp_path / 'state.db'}"}
    values = {"STATE_URL": request.getfixturevalue("postgres_url")}
    if "redis" in request.param:
        values["REDIS_URL"] = request.getfixturevalue("redis_url")
    return values


@pytest.fixture
def environment(
    state: Mapping[str, str],
    tmp_path: Path,
    fake_openai_process: FakeProcess,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> FakeProcess:
    """Settings for the processes; requests of a few texts, on their way for a while."""
    values = {
        "DATA_DIR": str(tmp_path / "data"),
        "EMBEDDING__MODEL": f"openai/{MODEL}",
        "REQUESTS__MAX_INPUTS": str(MAX_INPUTS),
        "LIMITS__MAX_IN_FLIGHT": str(IN_FLIGHT),
        **state,
    }
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", fake_openai_process.base_url)
    for name, value in values.items():
        monkeypatch.setenv(f"EMBEDDING_PIPELINE_{name}", value)
    fake_openai_process.option(latency=0.1)
    return fake_openai_process


def embed(*, kill: bool) -> list[dict[str, int]]:
    module = "embedding_pipeline_tests.engine.sharing"
    command = [sys.executable, "-m", module, str(PROCESSES), str(TEXTS), str(int(kill))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    results: list[dict[str, int]] = json.loads(done.stdout)
    return results


async def booked(state: Mapping[str, str]) -> tuple[int, int]:
    """Tokens in the ledger: settled, and unknown."""
    with Store(state["STATE_URL"], FakeClock()) as store:
        sums = await store.read(queries.sums)
    unknown = sum(entry.unknown_nano_usd for entry in sums) // PRICE
    return sum(entry.tokens for entry in sums) - unknown, unknown


@pytest.mark.anyio
async def test_four_processes_pay_each_text_once(
    environment: FakeProcess, state: Mapping[str, str]
) -> None:
    assert embed(kill=False) == [{"rows": TEXTS, "wrong": 0}] * PROCESSES
    books = environment.books
    assert (books.inputs, len(books.billed)) == (TEXTS, TEXTS)
    assert await booked(state) == (books.tokens, 0)


@pytest.mark.anyio
async def test_one_killed_half_way_the_others_get_everything(
    environment: FakeProcess, state: Mapping[str, str]
) -> None:
    assert embed(kill=True) == [{"rows": TEXTS, "wrong": 0}] * (PROCESSES - 1)
    books = environment.books
    assert len(books.billed) == TEXTS
    assert books.billed_twice <= IN_FLIGHT * MAX_INPUTS
    settled, unknown = await booked(state)
    assert settled + unknown >= books.tokens, "a bill nobody booked"
    assert settled <= books.tokens
