"""The wrapper that takes a permit before each request, alone and in the whole service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding_pipeline.assembly.embedder import build_limit_store
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.circuit import BreakerConfig, State
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.embedders.breaking import Breaking
from embedding_pipeline.embedders.limiting import Limiting
from embedding_pipeline.errors import (
    InputRefused,
    NoPermit,
    ProviderError,
    RateLimited,
    RateRampTooSteep,
    TransientProviderError,
)
from embedding_pipeline.ledger.queries import sums
from embedding_pipeline.limits.buckets import SAFE_TOKENS
from embedding_pipeline.limits.callers import on_behalf_of
from embedding_pipeline.limits.limiter import Limiter
from embedding_pipeline.limits.protocol import Terms
from embedding_pipeline.limits.state import State as LimitState
from embedding_pipeline.records import Account, Priority
from embedding_pipeline.service.work import WorkBatch
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.embedders.scripted import OK, Scripted, error
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI, listening
from embedding_pipeline_tests.limits.simulation import MemoryLimits, VirtualClock, in_no_time

TERMS = Terms(tokens=60_000, requests=600, burst=10_000, reserve=0)
TEXTS = ["x" * 4_000]


def _limiting(leaf: Scripted, clock: VirtualClock) -> tuple[Limiting, MemoryLimits]:
    store = MemoryLimits(clock)
    return Limiting(leaf, Limiter(store, "k", "p", TERMS, clock, max_wait_seconds=30)), store


def _after(step: ProviderError | None) -> LimitState:
    """The state after one request that ended like this."""

    async def scene() -> LimitState:
        limiting, store = _limiting(Scripted([step]), VirtualClock())
        with suppress(ProviderError):
            await limiting.embed(TEXTS)
        await limiting.aclose()
        return store.kept["k"]

    return in_no_time(scene())


FULL = 10_000 * 60_000


@pytest.mark.parametrize(
    ("step", "missing"),
    [
        (OK, 1_000),
        (error(TransientProviderError), 0),
        (error(TransientProviderError, maybe_billed=True), 1_000),
        (error(TransientProviderError, status=500), 1_000),
        (error(InputRefused, status=400), 1_000),
    ],
)
def test_what_reached_the_provider_is_spent_and_the_rest_given_back(
    step: ProviderError | None, missing: int
) -> None:
    state = _after(step)
    assert FULL - state.tokens.level == missing * 60_000
    assert state.clients == {}


@pytest.mark.parametrize(
    ("step", "rates", "refusals"),
    [
        (error(RateLimited, 2.5, status=429, type="tokens"), (42_000, 600), (1, 0)),
        (error(RateLimited, 2.5, status=429, type="requests"), (60_000, 420), (1, 0)),
        (error(RateLimited, 2.5, status=429), (42_000, 420), (1, 0)),
        (error(RateRampTooSteep, 2.5, status=503), (30_000, 300), (0, 1)),
    ],
)
def test_refusals_slow_everybody_down(
    step: ProviderError, rates: tuple[int, int], refusals: tuple[int, int]
) -> None:
    state = _after(step)
    assert (state.tokens.rate, state.requests.rate) == rates
    assert state.refusals == refusals
    assert 0 < state.blocked_until - state.at <= 2_500


def test_headers_of_refusals_count_too() -> None:
    told = {"x-ratelimit-limit-tokens": "30000", "x-ratelimit-remaining-tokens": "0"}
    state = _after(error(RateLimited, status=429, type="tokens", rate_headers=told))
    assert state.tokens.rate == 30_000


def test_waiting_is_measured_and_counted_for_the_caller() -> None:
    async def scene() -> None:
        limiting, store = _limiting(Scripted([OK]), VirtualClock())
        with on_behalf_of("docs", Priority.BULK):
            results = [await limiting.embed(TEXTS) for _ in range(11)]
        assert results[0].limited_seconds == 0
        assert results[-1].limited_seconds == pytest.approx(1.0, abs=0.01)
        assert store.kept["k"].totals["docs|2"][:2] == (11, 11_000)
        await limiting.aclose()

    in_no_time(scene())


def test_a_server_that_names_no_limit_is_held_to_one_once_it_refuses() -> None:
    async def scene() -> None:
        clock, store = VirtualClock(), MemoryLimits(VirtualClock())
        limiter = Limiter(store, "k", "p", Terms(), clock, max_wait_seconds=3_000)
        refusal = error(RateLimited, 2.0, status=429, type="tokens")
        limiting = Limiting(Scripted([OK, OK, OK, refusal, OK]), limiter)
        for _ in range(3):
            await limiting.embed(["x" * 4_000_000])
        assert clock.monotonic() == 0, "nobody waits where nobody named a limit"
        with on_behalf_of("docs", Priority.BULK), pytest.raises(RateLimited):
            await limiting.embed(TEXTS)
        await limiting.embed(TEXTS)
        assert clock.monotonic() >= 2.0, "Retry-After was heard, though there was no permit"
        state = store.kept["k"]
        assert state.totals["docs|2"] == (0, 0, 0, 1)
        shown = 3_000_000 * 60 // 61
        assert shown <= state.tokens.rate < 2 * shown, "as much as was served before, and climbing"
        assert state.requests.rate == state.requests.most, "a refusal for tokens is for tokens"
        assert limiter.limited, "one success more does not make it unlimited again"
        before = clock.monotonic()
        await limiting.embed(["x" * 400_000])
        assert clock.monotonic() > before
        await limiting.aclose()

    in_no_time(scene())


def test_a_failure_before_any_limit_is_known_does_not_hold_up_the_next_attempt() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        broken = error(TransientProviderError, status=500)
        limiter = Limiter(MemoryLimits(clock), "k", "p", Terms(), clock)
        limiting = Limiting(Scripted([broken, OK]), limiter)
        text = ["x" * 40 * SAFE_TOKENS]
        with pytest.raises(TransientProviderError):
            await limiting.embed(text)
        await limiting.embed(text)
        assert clock.monotonic() == 0
        await limiting.aclose()

    in_no_time(scene())


def test_no_permit_says_nothing_about_the_provider() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        limiting, _ = _limiting(Scripted([OK]), clock)
        breaking = Breaking(limiting, "p", BreakerConfig(failures_to_open=1), clock)
        await breaking.embed(["x" * 40_000])
        with pytest.raises(NoPermit):
            await asyncio.gather(*(breaking.embed(["x" * 40_000]) for _ in range(5)))
        assert breaking.circuit.state is State.CLOSED
        await breaking.aclose()

    in_no_time(scene())


def _settings(folder: Path, fake: FakeOpenAI, **limits: Any) -> Settings:
    return load_settings(
        {
            "data_dir": str(folder),
            "embedding": {"model": "openai/text-embedding-3-small"},
            "providers": [{"name": "openai", "kind": "openai", "base_url": fake.base_url}],
            "limits": limits,
        }
    )


async def _state(settings: Settings) -> LimitState:
    store = build_limit_store(settings, SystemClock())
    (state,) = (await store.states()).values()
    await store.aclose()
    return state


@pytest.mark.anyio
async def test_the_service_learns_the_limit_from_the_first_reply(tmp_path: Path) -> None:
    async with listening(FakeOpenAI()) as fake:
        fake.limit(rpm=500, tpm=1_000_000)
        settings = _settings(tmp_path, fake)
        async with EmbeddingService(settings=settings, api_key=KEY) as service:
            await service.embed_many(["one", "two"], project="docs", priority="bulk")
        state = await _state(settings)
    assert (state.tokens.limit, state.requests.limit) == (1_000_000, 500)
    assert state.totals["docs|2"][0] == 1


async def _one(text: str) -> AsyncIterator[WorkBatch]:
    yield WorkBatch("2026-01-01", ["c"], [text], np.array([3_000], np.int32), [Account("docs")])


@pytest.mark.anyio
async def test_a_call_cut_off_while_it_waits_for_a_permit_is_not_booked(tmp_path: Path) -> None:
    async with listening(FakeOpenAI()) as fake:
        settings = _settings(tmp_path, fake, tokens_per_minute=8_192, burst_seconds=1)
        async with EmbeddingService(settings=settings, api_key=KEY) as service:
            await service.embed_many(["word " * 3_000])

            async def run() -> None:
                async for _ in service.bulk(_one("other " * 3_000)).batches():
                    raise AssertionError("there was no permit for it")

            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await run()
        assert fake.books.requests == 1
    with Store(settings.state, SystemClock()) as store:
        booked = await store.read(sums)
    assert sum(entry.tokens for entry in booked) == fake.books.tokens
    assert sum(entry.unknown_nano_usd for entry in booked) == 0
