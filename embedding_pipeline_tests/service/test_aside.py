"""Blocking steps run one after another, in one thread that is not the loop's."""

import asyncio
import threading

import pytest

from embedding_pipeline.service.aside import Aside

pytestmark = pytest.mark.anyio


async def test_steps_run_in_their_order_in_one_other_thread() -> None:
    aside, done = Aside(), list[tuple[int, int]]()
    steps = [aside.run(lambda n=n: done.append((n, threading.get_ident()))) for n in range(5)]
    await asyncio.gather(*steps)
    aside.close()
    assert [n for n, _ in done] == [0, 1, 2, 3, 4]
    (thread,) = {ident for _, ident in done}
    assert thread != threading.get_ident()


async def test_what_a_step_raises_reaches_its_caller_and_nobody_else() -> None:
    aside = Aside()
    with pytest.raises(ZeroDivisionError):
        await aside.run(lambda: 1 // 0)
    assert await aside.run(int, "7") == 7
    aside.close()
