"""One request per key, then stop."""

import asyncio

import pytest

from embedding_pipeline.embedders.stopping import Stopping
from embedding_pipeline.errors import (
    InputRefused,
    KeyExhausted,
    ProviderError,
    ProviderRefused,
    RateLimited,
    TransientProviderError,
)
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.embedders.scripted import OK, Scripted, error

pytestmark = pytest.mark.anyio

STOPPERS = [
    error(KeyExhausted, status=429, maybe_billed=True),
    error(ProviderRefused, status=401),
    error(ProviderRefused, status=404),
]


async def gather(embedder: Stopping, count: int) -> list[object]:
    calls = [embedder.embed([f"text {i}"]) for i in range(count)]
    return list(await asyncio.gather(*calls, return_exceptions=True))


@pytest.mark.parametrize("refusal", STOPPERS, ids=lambda e: f"{type(e).__name__}{e.fault.status}")
async def test_forty_calls_at_once_send_one_request(
    refusal: ProviderError, clock: FakeClock
) -> None:
    leaf = Scripted([refusal])
    found = await gather(Stopping(leaf, clock), 40)
    assert leaf.calls == 1
    assert {type(item) for item in found} == {type(refusal)}
    unsent = [item for item in found if isinstance(item, ProviderError) and item is not refusal]
    assert len(unsent) == 39
    assert all("not sent" in str(item) and not item.fault.maybe_billed for item in unsent)


async def test_a_good_key_is_found_out_once(clock: FakeClock) -> None:
    leaf = Scripted([OK])
    leaf.gate = asyncio.Event()
    embedder = Stopping(leaf, clock)
    calls = [asyncio.create_task(embedder.embed(["a"])) for _ in range(5)]
    await asyncio.sleep(0)
    assert leaf.calls == 1
    leaf.gate.set()
    await asyncio.gather(*calls)
    leaf.gate = asyncio.Event()
    calls = [asyncio.create_task(embedder.embed(["a"])) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert leaf.calls == 10
    leaf.gate.set()
    await asyncio.gather(*calls)


@pytest.mark.parametrize("kind", [RateLimited, TransientProviderError, InputRefused])
async def test_other_errors_say_nothing_of_the_key(
    kind: type[ProviderError], clock: FakeClock
) -> None:
    leaf = Scripted([error(kind), OK])
    found = await gather(Stopping(leaf, clock), 6)
    assert leaf.calls == 6
    assert sum(isinstance(item, kind) for item in found) == 1


async def test_a_forbidden_text_does_not_stop_the_key(clock: FakeClock) -> None:
    leaf = Scripted([error(ProviderRefused, status=403), OK])
    embedder = Stopping(leaf, clock)
    with pytest.raises(ProviderRefused):
        await embedder.embed(["a"])
    await embedder.embed(["a"])


async def test_patience_ends_and_calls_go_anyway(clock: FakeClock) -> None:
    leaf = Scripted([OK])
    leaf.gate = asyncio.Event()
    embedder = Stopping(leaf, clock, patience_seconds=0)
    calls = [asyncio.create_task(embedder.embed(["a"])) for _ in range(3)]
    await asyncio.sleep(0)
    assert leaf.calls == 1
    for _ in range(5):
        await asyncio.sleep(0)
    assert leaf.calls == 3
    leaf.gate.set()
    await asyncio.gather(*calls)


async def test_a_cancelled_first_call_leaves_its_place(clock: FakeClock) -> None:
    leaf = Scripted([OK])
    leaf.gate = asyncio.Event()
    embedder = Stopping(leaf, clock)
    first = asyncio.create_task(embedder.embed(["a"]))
    second = asyncio.create_task(embedder.embed(["b"]))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    leaf.gate.set()
    result = await second
    assert leaf.calls == 2
    assert result.vectors.shape == (1, 4)


async def test_after_the_hold_one_call_finds_out(clock: FakeClock) -> None:
    leaf = Scripted([OK, error(KeyExhausted), error(KeyExhausted), OK])
    embedder = Stopping(leaf, clock, hold_seconds=100)
    await embedder.embed(["a"])
    with pytest.raises(KeyExhausted):
        await embedder.embed(["a"])
    clock.advance(99)
    with pytest.raises(KeyExhausted, match="not sent"):
        await embedder.embed(["a"])
    clock.advance(1)
    assert {type(item) for item in await gather(embedder, 5)} == {KeyExhausted}
    assert leaf.calls == 3
    clock.advance(100)
    await embedder.embed(["a"])
    assert leaf.calls == 4


async def test_answers_still_under_way_do_not_restart_a_refused_key(clock: FakeClock) -> None:
    leaf = Scripted([OK, OK, error(KeyExhausted)])
    embedder = Stopping(leaf, clock)
    await embedder.embed(["a"])
    leaf.gate = asyncio.Event()
    slow = asyncio.create_task(embedder.embed(["slow"]))
    await asyncio.sleep(0)
    gate, leaf.gate = leaf.gate, None
    with pytest.raises(KeyExhausted):
        await embedder.embed(["b"])
    gate.set()
    await slow
    with pytest.raises(KeyExhausted, match="not sent"):
        await embedder.embed(["c"])
