"""One seed from beginning to end: the story is acted out, then everything heals and is judged.

Belongs here: when processes begin, die and begin again, what is read in between, and the last
run. Does not belong here: what a process does (``process``), or the laws (``laws``).
"""

import asyncio
import logging
import os
import random
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from embedding_pipeline.cache import apart
from embedding_pipeline.embedders.fake import fake_vector
from embedding_pipeline.errors import EmbeddingPipelineError
from embedding_pipeline.records import RAW_CHUNKS, Priority, Space, content_hash
from embedding_pipeline.state import owners
from embedding_pipeline.state.owners import LEASE_SECONDS, Owner
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline.vectors.datasets import Datasets, EmbeddingsFile
from embedding_pipeline_tests.fake_openai.buckets import Limits
from embedding_pipeline_tests.service.harness import WIDTH
from embedding_pipeline_tests.simulation.api import CALM, POISON, Api
from embedding_pipeline_tests.simulation.disk import NONE, DiskStore, opened
from embedding_pipeline_tests.simulation.laws import Laws, require
from embedding_pipeline_tests.simulation.machine import PROCESS, Machine, Process
from embedding_pipeline_tests.simulation.process import SPACES, World, embed, work
from embedding_pipeline_tests.simulation.seeds import Blow, Chunk, Days, Story, Worker, story_of


@dataclass(frozen=True)
class Ending:
    """How a seed ended.

    Attributes:
        seed: the seed.
        broken: what did not hold, or "".
        history: a word for everything that happened.
        lines: all of it.
        calls, steps: requests sent, and steps made by all processes.
        seen: what befell somebody, in the words of ``census``.
    """

    seed: int
    broken: str
    history: str
    lines: tuple[str, ...]
    calls: int
    steps: int
    seen: frozenset[str]


class Stage:
    """A story and the machine it happens on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps = 0
        self._pids = iter(range(1, 10_000))
        self._gone: set[int] = set()
        self._looked: dict[Path, tuple[os.stat_result, set[str]]] = {}
        self.processes: list[Process] = []

    def gone(self, pid: int, _started: str) -> bool:
        """Whether a process is seen to be gone."""
        return pid in self._gone

    async def act(self) -> None:
        """Everything the story says, then the end of all trouble, and judgement."""
        world = self.world
        await asyncio.gather(*map(self._lead, world.story.workers))
        world.disk.trouble = NONE
        for api in world.apis:
            api.weather = CALM
        await world.machine.sleep(3 * LEASE_SECONDS)
        models = sorted({worker.model for worker in world.story.workers})
        for model in models:
            await self._calm(model, redrive=model == models[0])
        world.laws.at_rest()
        for model in models:
            self._judge(model)
        if not world.story.budgets and world.story.seed % 2:
            await self._ask_nothing(models)

    async def _ask_nothing(self, models: list[int]) -> None:
        calls = sum(api.calls for api in self.world.apis)
        for model in models:
            await self._calm(model)
        require("I5", sum(api.calls for api in self.world.apis) == calls, "a rerun sent requests")

    async def _calm(self, model: int, *, redrive: bool = False) -> None:
        """A run under a clear sky, which nothing may stop."""
        world, days = self.world, Days(tuple(self.world.story.days), Priority.NORMAL)

        async def run() -> None:
            try:
                async with world.service(model, 999) as service:
                    await embed(world, service, days, redrive=redrive)
            except EmbeddingPipelineError as exc:
                require("I9", False, "under a clear sky:", exc)

        await self.world.machine.launch(self._process(), run())

    async def _lead(self, worker: Worker) -> None:
        """A worker through all its lives; the last one is left in peace."""
        await self.world.machine.sleep(worker.begins)
        for number, blow in enumerate((*worker.lives, None)):
            await self._live(worker, blow, number)
            self.read()

    async def _live(self, worker: Worker, blow: Blow | None, number: int) -> None:
        world, process = self.world, self._process()
        doing = work(world, worker.work, worker.model, number)
        task = world.machine.launch(process, doing)
        if blow is not None:
            process.at(blow.step, partial(self._strike, process, task, blow))
        ends: set[asyncio.Future[Any]] = {task, process.ended}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if process.dead:
            if worker.seen:
                self._gone.add(process.pid)
            return
        how = "cancelled" if task.cancelled() else task.result()
        world.machine.say("process", process.pid, "ends:", how)

    def _strike(self, process: Process, task: "asyncio.Task[str]", blow: Blow) -> None:
        machine, laws = self.world.machine, self.world.laws
        if blow.kill:
            machine.note("killed")
            if isinstance(getattr(process.about, "__self__", None), DiskStore):
                machine.note("killed before a transaction")
            if laws.is_out(process.pid):
                machine.note("killed with a request out")
            process.die()
        elif blow.stop_seconds:
            laws.stopped += 1
            machine.note("stopped")
            if blow.stop_seconds > LEASE_SECONDS:
                machine.note("stopped past its lease")
            process.stop(blow.stop_seconds)
        else:
            machine.note("interrupted")
            machine.say("cancelled", process.pid)
            task.cancel()

    def _process(self) -> Process:
        process = Process(self.world.machine, next(self._pids))
        self.processes.append(process)
        return process

    def read(self) -> None:
        """I1, I6, I10: every file that is there is whole, and right."""
        for model in (0, 1):
            for day, chunks in self.world.story.days.items():
                self._read(model, day, chunks)

    def _read(self, model: int, day: str, chunks: tuple[Chunk, ...]) -> set[str] | None:
        space = SPACES[model]
        file = self.world.datasets.embeddings(space, day)
        if not file.exists():
            return None
        now = file.path.stat()
        before, seen = self._looked.get(file.path, (None, set()))
        if now != before:  # another replaced it, or it was never looked at
            seen = _whole(file, space, chunks)
            self._looked[file.path] = now, seen
        return seen

    def _judge(self, model: int) -> None:
        """I7, and the conservation of every chunk."""
        laws, space = self.world.laws, str(SPACES[model])
        for day, chunks in self.world.story.days.items():
            there = self._read(model, day, chunks)
            held, deferred = laws.held(space, day), laws.deferred(space, day)
            bad = {chunk.id for chunk in chunks if POISON in chunk.text}
            require("I6", there is not None, "no file for", day)
            assert there is not None
            ids = {chunk.id for chunk in chunks}
            require("I6", there | held | deferred == ids, "unexplained", ids - there)
            require("I6", not there & (held | deferred) and not held & deferred, "explained twice")
            require("I7", held <= bad and not there & bad, "held", held, "of", bad)
            if not self.world.story.budgets:
                require("I7", held == bad and not deferred, "held", held, "left", deferred)


def _whole(file: EmbeddingsFile, space: Space, chunks: tuple[Chunk, ...]) -> set[str]:
    """The chunks in a file, whose every vector is right."""
    texts = {chunk.id: chunk.text for chunk in chunks}
    seen: list[str] = []
    for batch in file.iter_batches():
        ids = batch.column("chunk_id").to_pylist()
        expected = np.array([fake_vector(space.model, texts[i], WIDTH) for i in ids])
        same = np.array_equal(matrix_of(batch.column("vector")), expected.reshape(-1, WIDTH))
        require("I1", same, "a file holds another text's vector")
        seen.extend(ids)
    says = file.provenance().counts
    left_out = says["quarantined"] + says["deferred"]
    require("I6", len(seen) == len(set(seen)), "a chunk twice in", file.day)
    require("I6", len(seen) + left_out == len(chunks), "a part of", file.day)
    return set(seen)


def play(seed: int, story: Story | None = None) -> Ending:
    """Act a seed out; the same seed ends the same way."""
    story = story or story_of(seed)
    machine = Machine(story.start)
    dice = random.Random(seed)
    broken, stage = "", None
    with ExitStack() as stack:
        stack.callback(machine.bury)
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="simulation-", dir=_memory())
        )
        disk = stack.enter_context(opened(machine, dice))
        messages = stack.enter_context(_logged(machine))
        disk.trouble = story.trouble
        disk.folder = Path(folder) / "vectors" if seed % 2 else None
        apis = [
            Api(f"p{number}", machine, dice, weather, _limits(story))
            for number, weather in enumerate(story.weathers)
        ]
        laws = Laws(story, disk, apis)
        datasets = Datasets(Path(folder))
        for day, chunks in story.days.items():
            _write(datasets, day, chunks)
        stage = Stage(World(story, machine, disk, apis, laws, datasets))
        stack.enter_context(_luck(dice, stage))
        try:
            machine.run_until_complete(stage.act())
            laws.keeps_secrets(messages)
            machine.seen |= story.kinds | laws.kinds()
        except Exception as exc:  # noqa: BLE001 - a seed that fails is told, and the next goes on
            why = machine.failure or exc
            broken = f"{type(why).__name__}: {why}"
        steps = sum(process.steps for process in stage.processes)
        calls = sum(api.calls for api in apis)
        seen = frozenset(machine.seen)
        return Ending(seed, broken, machine.digest(), tuple(machine.history), calls, steps, seen)


def _memory() -> Path | None:
    """A file system in memory, where there is one."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else None


def _limits(story: Story) -> Limits | None:
    return Limits(rpm=story.limits[0], tpm=story.limits[1]) if story.limits else None


@contextmanager
def _luck(dice: random.Random, stage: Stage) -> Iterator[None]:
    """What the operating system would say, and names that would be random, come from the seed."""

    def this_process() -> Owner:
        process = PROCESS.get()
        assert process is not None
        return Owner(uuid.uuid4().hex, owners._host(), process.pid, "")

    def name() -> uuid.UUID:
        return uuid.UUID(int=dice.getrandbits(128), version=4)

    with (
        patch.object(uuid, "uuid4", name),
        patch.object(apart, "LEAST_BYTES", 1),
        patch.object(os, "fsync", lambda _: None),  # this disk never loses its power
        patch.object(owners, "_host", lambda: "here"),
        patch.object(owners, "this_process", this_process),
        patch.object(owners, "_gone", stage.gone),
    ):
        yield


@contextmanager
def _logged(machine: Machine) -> Iterator[list[str]]:
    """What is logged meanwhile."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())
            machine.say("log:", messages[-1])

    log, handler = logging.getLogger("embedding_pipeline"), Keep()
    level, log.propagate = log.level, False
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = True


def _write(datasets: Datasets, day: str, chunks: tuple[Chunk, ...]) -> None:
    ids, texts = [chunk.id for chunk in chunks], [chunk.text for chunk in chunks]
    columns = {
        "chunk_id": ids,
        "document_id": ids,
        "ordinal": [0] * len(ids),
        "text": texts,
        "content_hash": list(map(content_hash, texts)),
        "token_count": list(map(len, texts)),
        "project": [chunk.project for chunk in chunks],
        "user": [chunk.user or None for chunk in chunks],
        "metadata": ["{}"] * len(ids),
    }
    arrays = [pa.array(columns[field.name], field.type) for field in RAW_CHUNKS]
    with datasets.deduped_chunks(day).writer() as writer:
        writer.write(pa.RecordBatch.from_arrays(arrays, schema=RAW_CHUNKS))
