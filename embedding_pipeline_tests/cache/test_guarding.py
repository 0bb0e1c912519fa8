"""A tier that fails is left out with one warning, and found again, with a real Redis."""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from embedding_pipeline.cache.guarding import BREAKER, Guarded
from embedding_pipeline.cache.redis import RedisTier, measure, redis_client
from embedding_pipeline.cache.tier import CacheTier, Lookup
from embedding_pipeline.errors import ConfigurationError, StateError
from embedding_pipeline.records import Digest, Space, Vectors, digest_of
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.servers import redis_in, server_folder

pytestmark = pytest.mark.anyio

SPACE = Space("openai", "model", "", 4)
KEYS = [digest_of(str(n)) for n in range(3)]
ROWS: Vectors = np.arange(12, dtype=np.float32).reshape(3, 4)


def tier_at(url: str, timeout: float = 60.0) -> RedisTier:
    return RedisTier(redis_client(url, timeout), "store", SPACE, "float32", 1000)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if "cache tier" in record.message]


async def test_stopped_and_started_again_it_is_left_out_and_found(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with server_folder() as folder:
        with redis_in(folder) as url:
            guarded = Guarded(tier_at(url), 4, clock)
            await guarded.put_many(KEYS, ROWS)
            assert (await guarded.get_many(KEYS)).found.all()
        for _ in range(5):
            assert not (await guarded.get_many(KEYS)).found.any()
            await guarded.put_many(KEYS, ROWS)
        assert said(caplog) == ["WARNING"]
        with redis_in(folder):
            assert not (await guarded.get_many(KEYS)).found.any(), "not its turn yet"
            clock.advance(BREAKER.open_seconds)
            assert not (await guarded.get_many(KEYS)).found.any(), "it is back, and empty"
            assert said(caplog)[1:] == ["INFO"]
            await guarded.put_many(KEYS, ROWS)
            assert (await guarded.get_many(KEYS)).found.all()
            await guarded.aclose()


async def test_one_that_is_full_still_answers(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    with server_folder() as folder, redis_in(folder, "--maxmemory-policy", "noeviction") as url:
        guarded = Guarded(tier_at(url), 4, clock)
        await guarded.put_many(KEYS[:1], ROWS[:1])
        async with redis_client(url) as client:
            await client.config_set("maxmemory", "1")
            await guarded.put_many(KEYS[1:], ROWS[1:])
            assert (await guarded.get_many(KEYS)).found.tolist() == [True, False, False]
            assert said(caplog) == ["WARNING"]
            await client.config_set("maxmemory", "0")
        clock.advance(BREAKER.open_seconds)
        await guarded.put_many(KEYS, ROWS)
        assert (await guarded.get_many(KEYS)).found.all()
        await guarded.aclose()


async def test_one_that_does_not_answer_is_waited_for_within_bounds(
    clock: FakeClock, tmp_path: Path
) -> None:
    """Connected, and then silence: what a stopped machine looks like."""
    socket = tmp_path / "silent.sock"

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()

    async with await asyncio.start_unix_server(silent, socket):
        tier = tier_at(f"unix://{socket}", 0.05)
        with pytest.raises(StateError, match="check redis_url"):
            await tier.get_many(KEYS)
        guarded = Guarded(tier, 4, clock)
        for _ in range(3):
            assert not (await guarded.get_many(KEYS)).found.any()
        await guarded.aclose()


class Slow(CacheTier):
    """Fails when told to, after a wait."""

    name = "slow"

    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()
        self.fails = True

    async def get_many(self, digests: Sequence[Digest]) -> Lookup:
        self.calls += 1
        await self.gate.wait()
        if self.fails:
            raise StateError("down")
        return Lookup(np.ones(len(digests), np.bool_), ROWS[: len(digests)])

    async def put_many(self, digests: Sequence[Digest], vectors: Vectors) -> None:
        raise AssertionError("nobody writes here")


async def test_while_it_is_down_one_call_probes_and_the_others_go_on(clock: FakeClock) -> None:
    tier = Slow()
    guarded = Guarded(tier, 4, clock)
    tier.gate.set()
    await guarded.get_many(KEYS)
    clock.advance(BREAKER.open_seconds)
    tier.gate.clear()
    probe = asyncio.create_task(guarded.get_many(KEYS))
    await asyncio.sleep(0)
    for _ in range(4):
        assert not (await guarded.get_many(KEYS)).found.any()
    assert tier.calls == 2
    tier.fails = False
    tier.gate.set()
    assert (await probe).found.all()
    assert (await guarded.get_many(KEYS)).found.all()


async def test_a_read_cut_off_says_nothing_about_the_tier(clock: FakeClock) -> None:
    tier = Slow()
    tier.fails = False
    guarded = Guarded(tier, 4, clock)
    cut = asyncio.create_task(guarded.get_many(KEYS))
    await asyncio.sleep(0)
    cut.cancel()
    await asyncio.gather(cut, return_exceptions=True)
    tier.gate.set()
    assert (await guarded.get_many(KEYS)).found.all()


async def test_values_go_when_their_time_is_up(redis_url: str) -> None:
    async with redis_client(redis_url) as client:
        tier = RedisTier(client, "store", SPACE, "float32", 1000)
        await tier.put_many(KEYS, ROWS)
        assert 990 < await client.ttl(tier.key(KEYS[0])) <= 1000


async def test_two_stores_that_share_a_redis_do_not_mix(redis_url: str) -> None:
    async with redis_client(redis_url) as client:
        one, other = (RedisTier(client, name, SPACE, "float32", 1000) for name in "ab")
        await one.put_many(KEYS, ROWS)
        assert not (await other.get_many(KEYS)).found.any()


def test_a_url_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="redis://host:6379/0"):
        _ = redis_client("http://localhost")


async def test_a_server_says_whether_it_forgets_before_it_is_full() -> None:
    bounded = ("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    with server_folder() as folder:
        with redis_in(folder) as url:
            assert not (await measure(redis_client(url))).bounded
        with redis_in(folder, *bounded):
            found = await measure(redis_client(url))
            assert found.bounded
            assert found.where == f"{folder}/redis.sock"
            assert 0 < found.used_mb < 100
        with pytest.raises(StateError, match="check redis_url"):
            await measure(redis_client(url))
