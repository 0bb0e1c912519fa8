"""One contract for every store of limits: SQLite, PostgreSQL, Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from embedding_pipeline.clock import SystemClock
from embedding_pipeline.errors import ConfigurationError, StateError
from embedding_pipeline.limits.base import LimitStore
from embedding_pipeline.limits.database import DatabaseLimits
from embedding_pipeline.limits.protocol import Ask, News, Terms, Want
from embedding_pipeline.limits.redis import RedisLimits
from embedding_pipeline.state.store import Store

pytestmark = pytest.mark.anyio

TERMS = Terms(tokens=60_000, requests=6_000, burst=10_000, reserve=2_000)
BURST = 60 * 10_000 // 60
Opening = Callable[[], LimitStore]


@pytest.fixture(params=["sqlite", "postgres", "redis"])
async def opening(
    request: pytest.FixtureRequest, tmp_path: Path, anyio_backend: str
) -> AsyncIterator[Opening]:
    """Opens stores on one and the same state."""
    url = f"sqlite:///{tmp_path / 'state.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
    redis = request.getfixturevalue("redis_url") if request.param == "redis" else ""
    opened: list[LimitStore] = []

    def open_one() -> LimitStore:
        clock = SystemClock()
        made = RedisLimits(redis) if redis else DatabaseLimits(lambda: _store(url), clock)
        opened.append(made)
        return made

    yield open_one
    for store in opened:
        await store.aclose()


def _store(url: str) -> Store:
    return Store(url, SystemClock(), rows=True)


def _want(tokens: int, project: str = "p", priority: int = 2) -> Want:
    return Want(project, 1000, priority, 0, tokens)


async def test_a_full_bucket_gives_its_burst_and_then_says_when(opening: Opening) -> None:
    store = opening()
    first = await store.exchange("k", TERMS, Ask("a", tuple(_want(BURST // 4) for _ in range(5))))
    assert first.granted == (0, 1, 2, 3)
    assert 0 < first.retry_after <= 2_500
    assert first.rates == (60_000, 6_000)
    assert first.known == (True, True)


async def test_all_stores_and_callers_together_get_no_more_than_there_is(opening: Opening) -> None:
    stores = [opening() for _ in range(4)]
    await stores[0].exchange("k", TERMS, Ask("start", ()))

    async def greedy(number: int) -> int:
        got = 0
        for turn in range(15):
            ask = Ask(f"{number}-{turn}", (_want(500, priority=0),))
            got += len((await stores[number % 4].exchange("k", TERMS, ask)).granted)
        return got

    began = asyncio.get_running_loop().time()
    granted = sum(await asyncio.gather(*(greedy(number) for number in range(8))))
    took = asyncio.get_running_loop().time() - began
    held = 12_000 + 1_000 * (took + 1)
    assert 12_000 // 500 <= granted <= held // 500


async def test_tokens_and_requests_are_taken_all_or_none(opening: Opening) -> None:
    store = opening()
    terms = Terms(tokens=600_000, requests=6, burst=10_000, reserve=0)
    answer = await store.exchange("k", terms, Ask("a", (_want(10), _want(10))))
    state = (await store.states())["k"]
    assert answer.granted == (0,)
    assert answer.retry_after > 5_000
    assert state.totals["p|2"] == (1, 10, 0, 0)


async def test_limits_learned_by_one_are_known_to_all(opening: Opening) -> None:
    news = News("ok", tokens=100, limits=(1_000_000, 500), remaining=(999_900, 499))
    await opening().exchange("k", Terms(), Ask("a", (), news=(news,)))
    answer = await opening().exchange("k", Terms(), Ask("b"))
    assert answer.rates == (1_000_000, 500)


async def test_a_wait_the_provider_asks_for_holds_for_all(opening: Opening) -> None:
    granted = (await opening().exchange("k", TERMS, Ask("a", (_want(1),)))).now
    news = News("refused", resource="tokens", granted_at=granted, retry_after=30_000)
    await opening().exchange("k", TERMS, Ask("a", news=(news,)))
    answer = await opening().exchange("k", TERMS, Ask("b", (_want(1),)))
    assert answer.granted == ()
    assert 25_000 < answer.retry_after <= 30_000
    assert 42_000 <= answer.rates[0] < 45_000, "70 %, and what it climbed since"
    assert answer.rates[1] == 6_000


async def test_who_is_ahead_is_said(opening: Opening) -> None:
    store = opening()
    drain = await store.exchange("k", TERMS, Ask("a", (_want(10_000, "x"), _want(9_000, "x"))))
    assert drain.granted == (0,)
    answer = await store.exchange("k", TERMS, Ask("b", (_want(4_000, "y", priority=2),) * 2))
    assert answer.granted == ()
    behind = await store.exchange("k", TERMS, Ask("c", (Want("x", 1000, 2, 0, 5),)))
    assert sorted(behind.ahead) == [("x", 1, 9_000), ("y", 2, 8_000)]


async def test_a_permit_does_not_wait_for_other_writers(postgres_url: str) -> None:
    limits = DatabaseLimits(lambda: _store(postgres_url), SystemClock())
    with Store(postgres_url, SystemClock()) as other:
        await limits.exchange("k", TERMS, Ask("a"))
        loop, begun, done = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

        def long_commit(_: object) -> None:
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(done.wait(), loop).result(600)

        writing = asyncio.create_task(other.write(long_commit))
        await begun.wait()
        async with asyncio.timeout(300):
            answer = await limits.exchange("k", TERMS, Ask("a", (_want(1),)))
        done.set()
        await writing
    await limits.aclose()
    assert answer.granted == (0,)


async def test_keys_do_not_touch_each_other(opening: Opening) -> None:
    store = opening()
    await store.exchange("one", TERMS, Ask("a", (_want(BURST),)))
    assert (await store.exchange("two", TERMS, Ask("a", (_want(BURST),)))).granted == (0,)
    assert sorted(await store.states()) == ["one", "two"]


async def test_a_server_that_is_not_there_says_what_to_check() -> None:
    store = RedisLimits("unix:///nowhere/redis.sock")
    with pytest.raises(StateError, match=r"/nowhere/redis.sock.*check redis_url"):
        await store.exchange("k", TERMS, Ask("a"))
    await store.aclose()
    with pytest.raises(ConfigurationError, match="redis://host:6379/0"):
        RedisLimits("http://x")
