"""Real processes on real stores against a server that enforces its limits."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.limits import load
from embedding_pipeline_tests.limits.load import Load, Work

RPM, TPM = 3_000, 3_000_000


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeProcess]:
    with process("--precomputed", "--latency", "0.1") as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings that put the limits into a store of each kind."""
    settings: dict[str, Any] = {"data_dir": str(tmp_path)}
    if request.param == "postgres":
        settings["state_url"] = request.getfixturevalue("postgres_url")
    if request.param == "redis":
        settings["redis_url"] = request.getfixturevalue("redis_url")
    return settings


def _settings(fake: FakeProcess, place: dict[str, Any], **limits: Any) -> dict[str, Any]:
    return {
        **place,
        "embedding": {"model": "openai/text-embedding-3-small"},
        "providers": [{"name": "openai", "kind": "openai", "base_url": fake.base_url}],
        "limits": {"burst_seconds": 1, **limits},
    }


@pytest.mark.parametrize("known", [True, False])
def test_two_processes_together_keep_to_the_limit(
    fake: FakeProcess, place: dict[str, Any], known: bool
) -> None:
    limits = {"requests_per_minute": RPM, "tokens_per_minute": TPM} if known else {}
    fake.reset()
    fake.limit(rpm=RPM, tpm=TPM)
    running = [
        load.start(Load(_settings(fake, place, **limits), 4.0, (Work(tokens=5_000),)))
        for _ in range(2)
    ]
    load.go(running)
    began = time.monotonic()
    outcomes = [load.finish(worker, 60) for worker in running]
    took = time.monotonic() - began
    assert fake.books.statuses["429"] == 0
    assert sum(outcome.tokens() for outcome in outcomes) <= TPM / 60 * (took + 3.5) + 10_000
    assert fake.books.tokens >= TPM / 60


def test_a_killed_process_holds_nobody_up(fake: FakeProcess, tmp_path: Path) -> None:
    fake.reset()
    fake.limit(rpm=RPM, tpm=TPM)
    settings = _settings(
        fake, {"data_dir": str(tmp_path)}, requests_per_minute=RPM, tokens_per_minute=TPM
    )
    victim = load.start(Load(settings, 60.0, (Work(tokens=50_000),)))
    load.go([victim])
    deadline = time.monotonic() + 20
    while fake.books.tokens < 100_000 and time.monotonic() < deadline:
        time.sleep(0.02)
    victim.kill()
    victim.wait()
    assert victim.stdout is not None
    victim.stdout.close()
    assert fake.books.tokens >= 100_000
    survivor = load.start(Load(settings, 8.0, (Work(tokens=5_000),)))
    load.go([survivor])
    outcome = load.finish(survivor, 60)
    assert outcome.tokens() >= TPM / 60 * 2, "what the dead one wanted is waited for 5 s at most"
    assert fake.books.statuses["429"] == 0
