"""A step that money depends on runs to its end, whoever loses patience."""

import asyncio

import pytest

from embedding_pipeline.service.finishing import finish
from embedding_pipeline_tests.service.harness import turns

pytestmark = pytest.mark.anyio


async def test_without_a_cancellation_it_is_a_plain_await() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    assert await finish(answer()) == 42


async def test_an_error_is_the_callers() -> None:
    async def fail() -> None:
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        await finish(fail())


@pytest.mark.parametrize("cancellations", [1, 3])
@pytest.mark.parametrize("fails", [False, True])
async def test_cancelled_it_ends_first_and_is_cancelled_then(
    cancellations: int, fails: bool
) -> None:
    gate, done = asyncio.Event(), []

    async def step() -> None:
        await gate.wait()
        done.append("end")
        if fails:
            raise LookupError("lost")

    caller = asyncio.create_task(finish(step()))
    await turns()
    for _ in range(cancellations):
        caller.cancel()
        await turns()
        assert not caller.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done == ["end"]
