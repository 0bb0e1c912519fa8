"""Real processes on real stores against a server that enforces its limits.

The short form of what ``python -m benchmarks.limits`` measures: counts and ratios only, so
that a busy machine changes nothing.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from embedding_pipeline.assembly.embedder import build_limit_store
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.limits.snapshot import Snapshot, Use, snapshots
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.limits import load
from embedding_pipeline_tests.limits.load import Load, Work

RPM, TPM = 3_000, 3_000_000
A_SECOND = TPM // 60
OUT = 2 * Work().lanes
"""Requests of two processes that can be out at once."""

PATIENCE = 600.0


@pytest.fixture(scope="module")
def server() -> Iterator[FakeProcess]:
    with process("--precomputed", "--latency", "0.1") as running:
        yield running


@pytest.fixture
def fake(server: FakeProcess) -> FakeProcess:
    """The server with new books and full buckets."""
    server.reset()
    server.limit(rpm=RPM, tpm=TPM)
    return server


@pytest.fixture
def sqlite(tmp_path: Path) -> dict[str, Any]:
    """Settings that put the limits into an SQLite file."""
    return {"data_dir": str(tmp_path)}


def _settings(fake: FakeProcess, place: dict[str, Any], **limits: Any) -> dict[str, Any]:
    return {
        **place,
        "embedding": {"model": "openai/text-embedding-3-small"},
        "providers": [{"name": "openai", "kind": "openai", "base_url": fake.base_url}],
        "limits": {"burst_seconds": 1, **limits},
    }


def _known(fake: FakeProcess, place: dict[str, Any]) -> dict[str, Any]:
    return _settings(fake, place, requests_per_minute=RPM, tokens_per_minute=TPM)


def _snapshots(settings: dict[str, Any]) -> Sequence[Snapshot]:
    """The limit as all processes see it, once somebody has asked for a permit."""

    async def ask() -> Sequence[Snapshot]:
        store = build_limit_store(load_settings(settings), SystemClock())
        try:
            return snapshots(await store.states())
        finally:
            await store.aclose()

    return asyncio.run(ask())


def _uses(settings: dict[str, Any]) -> dict[str, Use]:
    """What was used, by project."""
    return {use.project: use for found in _snapshots(settings) for use in found.uses}


def _until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("kind", "known"),
    [("sqlite", False), ("postgres", False), ("redis", True)],
)
def test_two_processes_together_keep_to_the_limit(
    fake: FakeProcess,
    sqlite: dict[str, Any],
    request: pytest.FixtureRequest,
    kind: str,
    known: bool,
) -> None:
    place = dict(sqlite)
    if kind != "sqlite":
        key = {"postgres": "state_url", "redis": "redis_url"}[kind]
        place[key] = request.getfixturevalue(f"{kind}_url")
    settings = _known(fake, place) if known else _settings(fake, place)
    running = [load.start(Load(settings, 3.0, (Work(tokens=5_000),))) for _ in range(2)]
    began = load.go(running)
    outcome = load.merged([load.finish(worker, PATIENCE) for worker in running])
    took = time.monotonic() - began
    assert fake.books.statuses["429"] == 0
    assert outcome.tokens() <= A_SECOND * (took + 3.5) + 10_000
    assert fake.books.tokens >= A_SECOND // 5


def test_what_a_killed_process_held_comes_back(fake: FakeProcess, sqlite: dict[str, Any]) -> None:
    settings = _known(fake, sqlite)
    held = Work("holds", "dead", tokens=A_SECOND // 2, lanes=2)
    sent = Work(project="dead", tokens=A_SECOND // 2, lanes=8)
    victims = [load.start(Load(settings, 300.0, (work,))) for work in (held, sent)]
    load.go(victims)
    _until(lambda: fake.books.in_flight > 0, "it sends")
    _until(lambda: sum(use.permits for use in _uses(settings).values()) >= 4, "they hold permits")
    for victim in victims:
        load.kill(victim)
    survivor = load.start(Load(settings, PATIENCE, (Work(tokens=A_SECOND, lanes=1, times=6),)))
    load.go([survivor])
    outcome = load.finish(survivor, PATIENCE + 30)
    assert outcome.tokens() == 6 * A_SECOND, "twice the bucket, well within a minute"
    assert fake.books.statuses["429"] == 0


def test_shares_follow_the_weights_across_processes(
    fake: FakeProcess, sqlite: dict[str, Any]
) -> None:
    settings = {**_known(fake, sqlite), "tenants": [{"project": "heavy", "weight": 3}]}
    works = [
        Work(project="heavy", tokens=2_500),
        Work(project="p1", tokens=5_000),
        Work(project="p2", tokens=1_250),
        Work(project="p3", tokens=2_500),
    ]
    newcomer = Work(project="third", tokens=10_000, lanes=1, times=1, start=8.0)
    running = [load.start(Load(settings, 11.0, tuple(works[n::2]))) for n in range(2)]
    running.append(load.start(Load(settings, 11.0, (newcomer,))))
    began = load.go(running)
    outcome = load.merged([load.finish(worker, PATIENCE) for worker in running])
    heavy, *equal = (outcome.tokens(work.project, began + 4) for work in works)
    assert outcome.tokens("third") == 10_000, "it is served in its turn, not last"
    if heavy + sum(equal) < 0.8 * 7 * A_SECOND:
        pytest.skip("this machine is too busy to ask for more than there is")
    assert heavy / (sum(equal) / 3) == pytest.approx(3, rel=0.15)
    assert sum(equal) ** 2 / (3 * sum(tokens**2 for tokens in equal)) >= 0.95


def test_urgent_texts_overtake_a_backfill_of_the_service(
    fake: FakeProcess, sqlite: dict[str, Any]
) -> None:
    settings = _known(fake, sqlite)
    works = (
        Work("backfill", "docs", "bulk", lanes=1),
        Work("singles", "live", "urgent", tokens=100, lanes=1, times=8),
    )
    backfill, asking = (load.start(Load(settings, PATIENCE, (work,))) for work in works)

    def waited() -> dict[str, float]:
        uses = _uses(settings).items()
        return {name: use.waited_seconds / use.permits for name, use in uses if use.permits}

    try:
        load.go([backfill])
        _until(lambda: waited().get("docs", 0.0) > 1.0, "the backfill uses all there is")
        load.go([asking])
        assert len(load.finish(asking, PATIENCE).waits("live")) == 8
        found = waited()
    finally:
        load.kill(backfill)
    assert found["live"] < found["docs"] / 2
    assert fake.books.statuses["429"] == 0


def test_a_limit_that_is_halved_and_restored_is_followed(
    fake: FakeProcess, sqlite: dict[str, Any]
) -> None:
    settings = _settings(fake, sqlite)
    running = [load.start(Load(settings, 300.0, (Work(tokens=5_000),))) for _ in range(2)]
    load.go(running)

    def rate() -> int:
        return _snapshots(settings)[0].resources[0].per_minute

    try:
        _until(lambda: fake.books.tokens > A_SECOND and rate() == TPM, "it is learned")
        fake.limit(rpm=RPM, tpm=TPM // 2, level=0.0)
        _until(lambda: rate() == TPM // 2, "the headers are believed")
        settled = fake.books
        _until(lambda: fake.books.tokens > settled.tokens + 2 * A_SECOND, "it goes on")
        assert fake.books.statuses["429"] <= OUT, "what was out, once"
        fake.limit(rpm=RPM, tpm=TPM, level=0.0)
        _until(lambda: rate() > TPM * 7 // 10, "it climbs back")
        assert fake.books.statuses["429"] <= 2 * OUT
    finally:
        for worker in running:
            load.kill(worker)
