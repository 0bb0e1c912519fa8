"""Processes that end by SIGKILL at each mark, and others that come after them.

Run as ``python -m embedding_pipeline_tests.batch_api.killed PORT FOLDER`` it writes a line of
JSON for each mark. Children are forked from here, where no thread has been started yet: what
is imported once serves them all.
"""

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from embedding_pipeline.batch_api.books import LEASE_MS
from embedding_pipeline_tests.batch_api.world import ADVANCING, SUBMITTING, World, texts_of
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.stores import open_store

START = 1_790_000_000.0


def child(work: Callable[[], Awaitable[None]]) -> int:
    """Run it in a process of its own; returns how that ended, as ``waitpid`` says it."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        asyncio.run(_awaited(work))
    except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
        traceback.print_exc()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def be_killed(fake: FakeProcess, folder: Path, point: str) -> None:
    """Submit and advance, up to the mark."""

    def mark(where: str) -> None:
        if where == point:
            os.kill(os.getpid(), signal.SIGKILL)

    with open_store(folder) as store:
        world = World(store, fake, clock=FakeClock(START))
        await world.submit_and_advance(texts_of(12), mark)


async def come_after(fake: FakeProcess, folder: Path, outcome: dict[str, object]) -> None:
    """Do what is left, from what the store and the provider know; say how it went."""
    texts = texts_of(12)
    with open_store(folder) as store:
        world = World(store, fake, clock=FakeClock(START + LEASE_MS / 1000 + 1))
        await world.finish()
        outcome["sent_again"] = (await world.submit(texts)).inputs
        await world.finish()
        await world.sweep()
        books = fake.books
        outcome |= {
            "right": all(await world.right(texts)),
            "batches": fake.batches["batches"],
            "files": fake.batches["files"],
            "billed_twice": books.billed_twice,
            "unbooked_nano_usd": books.cost_nano_usd - await world.booked(),
            "unknown_nano_usd": await world.booked("unknown"),
            "left_over": await world.left_over(texts),
        }
    sys.stdout.write(json.dumps(outcome) + "\n")


def main(port: int, folder: Path) -> int:
    """Every mark in turn."""
    fake = FakeProcess(port)
    for point in SUBMITTING + ADVANCING:
        fake.reset()
        home = folder / point.replace(" ", "_")
        home.mkdir()
        ended = child(lambda: be_killed(fake, home, point))  # noqa: B023 - called at once
        killed = os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL
        outcome: dict[str, object] = {"point": point, "killed": killed}
        if child(lambda: come_after(fake, home, outcome)):  # noqa: B023 - called at once
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
