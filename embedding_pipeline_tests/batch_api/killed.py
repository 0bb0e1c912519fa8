"""Days on their way through the Batch API in processes that end by SIGKILL at each mark.

Run as ``python -m embedding_pipeline_tests.batch_api.killed PORT FOLDER [MARK]…`` it writes a
line of JSON for each mark: how a process was killed there, and how things stand after others came.
Children are forked from here, where no thread has been started yet: what is imported once
serves them all.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from embedding_pipeline.assembly import batching
from embedding_pipeline.assembly.batch_keeping import find_ready, keep
from embedding_pipeline.assembly.parts import build_datasets, open_store
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.batch_api.books import LEASE_MS
from embedding_pipeline.batch_api.submitting import Mark, unmarked
from embedding_pipeline.embedders import breaking, limiting, openai, retrying, stopping
from embedding_pipeline.ledger import queries
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state import schema
from embedding_pipeline_tests.batch_api.days import DAYS, make_days, settings_of, vectors_of
from embedding_pipeline_tests.batch_api.world import ADVANCING, SUBMITTING
from embedding_pipeline_tests.engine.quick import QuickClock
from embedding_pipeline_tests.fake_openai.process import FakeProcess

LOADED = (breaking, limiting, openai, retrying, stopping)
"""Otherwise each child would load them."""

RUNNING = ("run ended", "day written")
"""Marks around the work of a run itself."""

POINTS = SUBMITTING + ADVANCING + RUNNING


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


@dataclass
class Operator:
    """What runs and the sensor do, one after the other, on one folder."""

    settings: Settings
    mark: Mark = unmarked
    clock: QuickClock = field(default_factory=QuickClock)

    async def run(self) -> None:
        """A run of the days: ahead to the Batch API, then what is there into the files."""
        datasets = build_datasets(self.settings)
        sent = await batching.send_days(self.settings, datasets, DAYS, "a run", self.clock)
        assert sent is not None
        async with EmbeddingService.open(self.settings, clock=self.clock) as service:
            await build_embeddings(
                service,
                datasets,
                DAYS,
                on_partition=lambda report: self.mark("day written" if report.cached else ""),
                hold=sent.hold,
            )
        self.mark("run ended")

    async def tick(self) -> bool:
        """What the sensor does, and the backfill it launches; whether anything is left."""
        kept = await keep(self.settings, self.clock)
        ready = await find_ready(self.settings)
        if ready:
            await self.run()
        return bool(kept.left or ready or ready.waiting)

    async def to_the_end(self) -> None:
        """Ticks until nothing is left; every lease and pause passes in between."""
        for _ in range(10):
            self.clock.skipped += LEASE_MS / 1000 + 1
            if not await self.tick():
                return
        raise AssertionError("there is work left")


async def be_killed(settings: Settings, point: str) -> None:
    """A run and ticks, up to the mark."""

    def mark(where: str) -> None:
        if where == point:
            os.kill(os.getpid(), signal.SIGKILL)

    vars(batching)["unmarked"] = mark  # of this process alone
    operator = Operator(settings, mark)
    await operator.run()
    for _ in range(3):
        await operator.tick()


async def come_after(settings: Settings, fake: FakeProcess, outcome: dict[str, object]) -> None:
    """Repeat the run, as Dagster would, and go on to the end; say how it went."""
    operator = Operator(settings)
    await operator.run()
    await operator.to_the_end()
    books = fake.books
    with open_store(settings) as store:
        sums = await store.read(queries.sums)
        left = await store.read(lambda c: [c.scalar(count(table)) for table in LEFT])
    booked = sum(entry.cost_nano_usd for entry in sums)
    outcome |= {
        "right": vectors_of(settings),
        "batches": fake.batches["batches"],
        "files": fake.batches["files"],
        "billed_twice": books.billed_twice,
        "half_price": booked == 10 * books.tokens,
        "unbooked_nano_usd": books.cost_nano_usd - booked,
        "unknown_nano_usd": sum(entry.unknown_nano_usd for entry in sums),
        "left_over": left,
    }
    sys.stdout.write(json.dumps(outcome) + "\n")


LEFT = (schema.claims, schema.submission_keys, schema.flights, schema.reservations, schema.deferred)


def count(table: Any) -> Any:
    """How many rows a table has."""
    return select(func.count()).select_from(table)


def main(port: int, folder: Path, points: Sequence[str] = POINTS) -> int:
    """Each mark in turn; all of them take half a minute of CPU."""
    fake = FakeProcess(port)
    made = settings_of(folder / "made", fake.base_url)
    if child(lambda: make_days(made)):
        return 1
    for point in points:
        fake.reset()
        fake.batch_option(polls=1)
        home = folder / point.replace(" ", "_")
        shutil.copytree(made.data_path, home)
        settings = made.model_copy(update={"data_dir": str(home)})
        ended = child(lambda: be_killed(settings, point))  # noqa: B023 - called at once
        killed = os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL
        outcome: dict[str, object] = {"point": point, "killed": killed}
        if child(lambda: come_after(settings, fake, outcome)):  # noqa: B023 - called at once
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or POINTS))
