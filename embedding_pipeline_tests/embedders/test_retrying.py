"""What time may cure is tried again; nothing else is, and time is always bounded."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.embedders.retrying import RETRIED, Past, Retrying, decide
from embedding_pipeline.errors import (
    CircuitOpen,
    InputRefused,
    InvalidReply,
    KeyExhausted,
    ProviderError,
    ProviderRefused,
    RateLimited,
    RateRampTooSteep,
    RequestTooLarge,
    TransientProviderError,
)
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.embedders.scripted import OK, Scripted, error
from embedding_pipeline_tests.service.harness import HandClock

pytestmark = pytest.mark.anyio

CONFIG = RetryConfig(max_attempts=4, max_seconds=900)
WAITING = [RateLimited, RateRampTooSteep, CircuitOpen]
FAILING = [TransientProviderError, InvalidReply]
FINAL = [RequestTooLarge, InputRefused, KeyExhausted, ProviderRefused]


def retrying(leaf: Scripted, clock: FakeClock, config: RetryConfig = CONFIG) -> Retrying:
    return Retrying(leaf, config, clock, random.Random(3))


kinds = st.sampled_from([*WAITING, *FAILING])
waits = st.one_of(st.none(), st.floats(0, 3600))
draws = st.floats(0, 1, exclude_max=True)


@given(kinds, waits, st.integers(0, 2000), st.integers(1, 12), st.floats(0, 2000), draws)
def test_a_decision_respects_every_bound(
    kind: type[ProviderError],
    server: float | None,
    before: int,
    failures: int,
    elapsed: float,
    draw: float,
) -> None:
    decision = decide(
        error(kind, server), Past(before, failures, min(failures, 2), elapsed), CONFIG, draw
    )
    if decision.wait_seconds is None:
        assert decision.why
        out_of_attempts = kind in FAILING and failures >= CONFIG.max_attempts
        least = max(server or 0, 5 if kind is RateRampTooSteep else 0)
        assert out_of_attempts or elapsed + max(least, 0.5) >= CONFIG.max_seconds
        return
    assert elapsed < CONFIG.max_seconds
    assert elapsed + decision.wait_seconds <= CONFIG.max_seconds + 1e-6
    assert decision.wait_seconds >= (server or 0)
    assert decision.wait_seconds <= (server or 5) + 60
    assert server is None or decision.wait_seconds <= max(server, 5) + max(server, 10)
    assert kind in WAITING or failures < CONFIG.max_attempts


@given(kinds, st.integers(0, 8), draws)
def test_waits_spread_and_grow(kind: type[ProviderError], before: int, draw: float) -> None:
    def wait(attempts: int, draw: float) -> float:
        found = decide(error(kind), Past(attempts, 1, 1, 0.0), CONFIG, draw).wait_seconds
        assert found is not None
        return found

    assert wait(before, draw) >= wait(before, 0.0)
    assert wait(before + 1, draw) >= wait(before, draw)


def test_every_retried_class_is_tested_here() -> None:
    assert set(RETRIED) <= {*WAITING, *FAILING}


@pytest.mark.parametrize("kind", [*WAITING, *FAILING])
async def test_success_after_trouble_tells_of_it(
    kind: type[ProviderError], clock: FakeClock
) -> None:
    leaf = Scripted([error(kind, code="c"), error(kind, status=418), OK])
    result = await retrying(leaf, clock).embed(["a", "b"])
    assert result.vectors.shape == (2, 4)
    assert leaf.calls == 3
    assert result.requests == (1 if kind is CircuitOpen else 3)
    assert [a.error for a in result.attempts] == [kind.__name__] * 2
    assert [a.code for a in result.attempts] == ["c", "418"]
    assert [a.waited_seconds for a in result.attempts] == clock.sleeps


async def test_success_at_once_waits_for_nothing(clock: FakeClock) -> None:
    result = await retrying(Scripted([OK]), clock).embed(["a"])
    assert (result.requests, result.attempts, clock.sleeps) == (1, (), [])


@pytest.mark.parametrize("kind", FINAL)
async def test_what_time_does_not_cure_passes_straight_through(
    kind: type[ProviderError], clock: FakeClock
) -> None:
    leaf = Scripted([error(kind, input_index=3)])
    with pytest.raises(kind) as caught:
        await retrying(leaf, clock).embed(["a"])
    assert leaf.calls == 1
    assert clock.sleeps == []
    assert caught.value.fault.input_index == 3
    assert [a.error for a in caught.value.attempts] == [kind.__name__]


async def test_failures_are_counted(clock: FakeClock) -> None:
    leaf = Scripted([error(TransientProviderError, maybe_billed=True)])
    with pytest.raises(TransientProviderError, match="because 4 attempts have failed") as caught:
        await retrying(leaf, clock).embed(["a"])
    assert leaf.calls == 4
    assert len(caught.value.attempts) == 4
    assert all(a.maybe_billed for a in caught.value.attempts)
    assert caught.value.attempts[-1].waited_seconds == 0


async def test_replies_that_cannot_be_trusted_are_asked_for_three_times(clock: FakeClock) -> None:
    """They are billed each time; splitting the request finds the text behind it."""
    leaf = Scripted([error(TransientProviderError), error(InvalidReply, maybe_billed=True)])
    config = RetryConfig(max_attempts=8)
    with pytest.raises(InvalidReply, match="3 replies could not be trusted") as caught:
        await retrying(leaf, clock, config).embed(["a"])
    assert len(caught.value.attempts) == 4


async def test_a_storm_of_429s_drops_nothing_while_there_is_time(clock: FakeClock) -> None:
    leaf = Scripted([error(RateLimited, 20)] * 20 + [OK])
    result = await retrying(leaf, clock).embed(["a"])
    assert len(result.attempts) == 20
    assert clock.elapsed < CONFIG.max_seconds + 1
    assert min(clock.sleeps[:-1]) >= 20


async def test_waiting_does_not_use_up_failures(clock: FakeClock) -> None:
    steps = [error(RateLimited), error(TransientProviderError), error(CircuitOpen)] * 3
    result = await retrying(Scripted([*steps, OK]), clock).embed(["a"])
    assert len(result.attempts) == 9


@pytest.mark.parametrize("kind", WAITING)
async def test_time_bounds_waiting_too(kind: type[ProviderError], clock: FakeClock) -> None:
    leaf = Scripted([error(kind, 1.0)])
    with pytest.raises(kind, match="no time left of 900 s"):
        await retrying(leaf, clock).embed(["a"])
    assert 890 < clock.elapsed <= 900


async def test_a_wait_beyond_the_time_left_is_not_begun(clock: FakeClock) -> None:
    leaf = Scripted([error(RateLimited, 901)])
    with pytest.raises(RateLimited, match="no time left"):
        await retrying(leaf, clock).embed(["a"])
    assert (leaf.calls, clock.elapsed) == (1, 0)


async def test_workers_told_to_wait_alike_do_not_wake_together() -> None:
    wakes = []
    rng = random.Random(5)
    for _ in range(16):
        clock = FakeClock()
        leaf = Scripted([error(RateLimited, 20), OK])
        await Retrying(leaf, CONFIG, clock, rng).embed(["a"])
        wakes.append(clock.elapsed)
    assert min(wakes) >= 20
    assert len({round(wake, 2) for wake in wakes}) > 12


async def test_cancellation_is_not_retried(clock: FakeClock) -> None:
    leaf = Scripted([OK])
    leaf.gate = asyncio.Event()
    task = asyncio.create_task(retrying(leaf, clock).embed(["a"]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leaf.calls == 1


@pytest.mark.parametrize("between", [False, True])
async def test_a_cancellation_says_what_failed_before_and_whether_a_call_is_out(
    between: bool,
) -> None:
    clock = HandClock(through=0.0 if between else 900.0)
    leaf = Scripted([error(TransientProviderError, maybe_billed=True), OK])
    task = asyncio.create_task(Retrying(leaf, CONFIG, clock, random.Random(3)).embed(["a"]))
    while leaf.calls == 0:
        await asyncio.sleep(0)
        leaf.gate = asyncio.Event()  # the second call waits for it
    for _ in range(20):
        await asyncio.sleep(0)
    assert leaf.calls == (1 if between else 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as cut:
        await task
    (attempt,) = vars(cut.value)["attempts"]
    assert (attempt.error, attempt.maybe_billed) == ("TransientProviderError", True)
    assert vars(cut.value)["between_calls"] is between
