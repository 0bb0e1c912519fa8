"""An ailing provider is left alone, and found again."""

import asyncio

import pytest

from embedding_pipeline.circuit import BreakerConfig, State
from embedding_pipeline.embedders.breaking import Breaking
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

pytestmark = pytest.mark.anyio

CONFIG = BreakerConfig(failures_to_open=3, open_seconds=2, max_open_seconds=10)
FAILURE = error(TransientProviderError)
ANSWERS = [
    RateLimited,
    RateRampTooSteep,
    InputRefused,
    RequestTooLarge,
    KeyExhausted,
    ProviderRefused,
    InvalidReply,
]


def breaking(leaf: Scripted, clock: FakeClock) -> Breaking:
    return Breaking(leaf, "p", CONFIG, clock)


async def fail(embedder: Breaking, times: int) -> None:
    for _ in range(times):
        with pytest.raises(TransientProviderError):
            await embedder.embed(["a"])


async def test_it_opens_after_failures_in_a_row_and_sends_nothing(clock: FakeClock) -> None:
    leaf = Scripted([FAILURE])
    embedder = breaking(leaf, clock)
    await fail(embedder, 3)
    with pytest.raises(CircuitOpen, match="left alone for now") as caught:
        await embedder.embed(["a"])
    assert leaf.calls == 3
    assert caught.value.fault.retry_after == 2
    assert not caught.value.fault.maybe_billed


async def test_an_answer_in_between_starts_the_count_anew(clock: FakeClock) -> None:
    embedder = breaking(Scripted([FAILURE, FAILURE, OK, FAILURE, FAILURE, OK]), clock)
    await fail(embedder, 2)
    await embedder.embed(["a"])
    await fail(embedder, 2)
    await embedder.embed(["a"])
    assert embedder.circuit.state is State.CLOSED


@pytest.mark.parametrize("kind", ANSWERS)
async def test_a_refusal_is_no_failure(kind: type[ProviderError], clock: FakeClock) -> None:
    embedder = breaking(Scripted([error(kind)]), clock)
    for _ in range(10):
        with pytest.raises(kind):
            await embedder.embed(["a"])
    assert embedder.circuit.state is State.CLOSED


async def test_the_probe_closes_it(clock: FakeClock) -> None:
    states: list[State] = []
    embedder = Breaking(
        Scripted([FAILURE, FAILURE, FAILURE, OK]), "p", CONFIG, clock, states.append
    )
    await fail(embedder, 3)
    clock.advance(2)
    await embedder.embed(["a"])
    await embedder.embed(["a"])
    assert states == [State.OPEN, State.HALF_OPEN, State.CLOSED]


async def test_a_failing_probe_doubles_the_time_up_to_a_bound(clock: FakeClock) -> None:
    embedder = breaking(Scripted([FAILURE]), clock)
    await fail(embedder, 3)
    opened = []
    for _ in range(5):
        with pytest.raises(CircuitOpen) as caught:
            await embedder.embed(["a"])
        opened.append(caught.value.fault.retry_after)
        clock.advance(caught.value.fault.retry_after or 0)
        await fail(embedder, 1)
    assert opened == [2, 4, 8, 10, 10]


async def test_only_one_call_probes(clock: FakeClock) -> None:
    leaf = Scripted([FAILURE, FAILURE, FAILURE, OK])
    embedder = breaking(leaf, clock)
    await fail(embedder, 3)
    clock.advance(2)
    leaf.gate = asyncio.Event()
    probe = asyncio.create_task(embedder.embed(["a"]))
    await asyncio.sleep(0)
    for _ in range(5):
        with pytest.raises(CircuitOpen):
            await embedder.embed(["a"])
    leaf.gate.set()
    await probe
    assert leaf.calls == 4


async def test_a_cancelled_probe_leaves_its_place_to_the_next(clock: FakeClock) -> None:
    leaf = Scripted([FAILURE, FAILURE, FAILURE, OK])
    embedder = breaking(leaf, clock)
    await fail(embedder, 3)
    clock.advance(2)
    leaf.gate = asyncio.Event()
    probe = asyncio.create_task(embedder.embed(["a"]))
    await asyncio.sleep(0)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    leaf.gate.set()
    await embedder.embed(["a"])
    assert embedder.circuit.state is State.CLOSED


async def test_late_answers_of_before_do_not_close_it(clock: FakeClock) -> None:
    leaf = Scripted([OK, FAILURE])
    embedder = breaking(leaf, clock)
    leaf.gate = asyncio.Event()
    slow = asyncio.create_task(embedder.embed(["a"]))
    await asyncio.sleep(0)
    gate, leaf.gate = leaf.gate, None
    await fail(embedder, 3)
    gate.set()
    await slow
    assert embedder.circuit.state is State.OPEN
