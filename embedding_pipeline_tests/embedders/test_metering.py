"""Every outcome is seen, and none is changed."""

import asyncio

import pytest

from embedding_pipeline.embedders.metering import Metering, Observation
from embedding_pipeline.errors import RateLimited
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.embedders.scripted import OK, Scripted, error

pytestmark = pytest.mark.anyio


async def test_results_and_errors_reach_the_observer(clock: FakeClock) -> None:
    seen: list[Observation] = []
    limited = error(RateLimited)
    embedder = Metering(Scripted([OK, limited]), seen.append, clock)
    result = await embedder.embed(["a", "b"])
    with pytest.raises(RateLimited) as caught:
        await embedder.embed(["c"])
    assert caught.value is limited
    assert seen == [Observation(2, 0.0, result), Observation(1, 0.0, error=limited)]


async def test_a_cancelled_call_is_seen_too(clock: FakeClock) -> None:
    seen: list[Observation] = []
    leaf = Scripted([OK])
    leaf.gate = asyncio.Event()
    task = asyncio.create_task(Metering(leaf, seen.append, clock).embed(["a"]))
    await asyncio.sleep(0)
    clock.advance(3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen[0].seconds == 3
    assert isinstance(seen[0].error, asyncio.CancelledError)


async def test_wrappers_keep_the_space_and_close_what_they_wrap(clock: FakeClock) -> None:
    leaf = Scripted([OK])
    async with Metering(leaf, lambda _: None, clock) as embedder:
        assert embedder.space == leaf.space
    assert leaf.closed == 1
