"""``python -m embedding_pipeline_tests.limits.load``: one process with work to do, for a while.

Used by tests that need real processes, and by the benchmark. The one argument is JSON, see
``Load``; what is printed is "ready", and at the end an ``Outcome`` as JSON.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding_pipeline.assembly.embedder import build_embedder, build_limit_store
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.embedders.base import Embedder, Wrapper
from embedding_pipeline.embedders.limiting import Limiting
from embedding_pipeline.limits.callers import Caller, on_behalf_of
from embedding_pipeline.records import Account, Priority
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings

if TYPE_CHECKING:  # both take long to import, and most children need neither
    from embedding_pipeline.assembly.service import EmbeddingService
    from embedding_pipeline.service.work import WorkBatch

ROOT = Path(__file__).resolve().parents[2]
TEXT = 1_000
"""Characters of one text of a backfill: 250 tokens."""


@dataclass(frozen=True)
class Work:
    """Callers of one kind.

    Attributes:
        kind: ``requests`` (straight to the provider), ``singles`` (one text after the other,
            by ``generate_embedding``), ``backfill`` (a bulk run that never ends) or ``holds``
            (takes permits and never sends anything).
        project, priority: on whose behalf.
        tokens: of one request or single text, as bytes / 4.
        lanes: callers at once.
        times: how often each calls, 0 for as long as there is time.
        start: seconds until they begin.
        pause: seconds a caller rests after each answer.
    """

    kind: str = "requests"
    project: str = "p"
    priority: str = "bulk"
    tokens: int = 10_000
    lanes: int = 16
    times: int = 0
    start: float = 0.0
    pause: float = 0.0


@dataclass(frozen=True)
class Load:
    """What a process does: a settings tree, how long, its callers, and the API's key."""

    settings: Mapping[str, Any]
    seconds: float
    works: Sequence[Work] = (Work(),)
    key: str = ""


@dataclass(frozen=True)
class Answer:
    """One answer: for whom, when (on the machine's steady clock), how much, how long it took."""

    project: str
    at: float
    tokens: int
    wait: float


@dataclass
class Outcome:
    """What came of it: the answers, and the 429s met."""

    answers: list[Answer] = field(default_factory=list)
    refusals: int = 0

    def tokens(self, project: str = "", begin: float = 0.0, end: float = float("inf")) -> int:
        """Tokens answered, of one project or of all, between two instants."""
        return sum(
            answer.tokens
            for answer in self.answers
            if begin <= answer.at < end and project in ("", answer.project)
        )

    def waits(self, project: str) -> list[float]:
        """How long the project's callers waited, sorted."""
        return sorted(answer.wait for answer in self.answers if answer.project == project)


def merged(outcomes: Sequence[Outcome]) -> Outcome:
    """Several processes as one."""
    answers = sorted((a for one in outcomes for a in one.answers), key=lambda a: a.at)
    return Outcome(answers, sum(one.refusals for one in outcomes))


def median(waits: Sequence[float]) -> float:
    """The median; of nothing, no good one."""
    return statistics.median(waits) if waits else float("inf")


def p99(waits: Sequence[float]) -> float:
    """The 99th percentile of sorted values."""
    return waits[min(len(waits) - 1, len(waits) * 99 // 100)] if waits else float("inf")


def start(load: Load) -> "subprocess.Popen[str]":
    """The process; it works once its standard input is closed, so that many begin together."""
    from embedding_pipeline_tests.fake_openai.server import KEY

    command = [sys.executable, "-m", "embedding_pipeline_tests.limits.load"]
    return subprocess.Popen(
        [*command, json.dumps({**asdict(load), "key": KEY})],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(processes: Sequence["subprocess.Popen[str]"]) -> float:
    """Wait until all are ready, then let them begin; returns when that was."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    return began


def finish(process: "subprocess.Popen[str]", seconds: float) -> Outcome:
    """Its outcome; an error when it ends with one or takes longer."""
    process.stdin = None
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, f"ended with {process.returncode}"
    tree = json.loads(output)
    return Outcome([Answer(*answer) for answer in tree["answers"]], tree["refusals"])


def kill(process: "subprocess.Popen[str]") -> None:
    """End it with SIGKILL, wherever it is."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and not pipe.closed:
            pipe.close()


def limiting_of(embedder: Embedder) -> Limiting:
    """The limiting wrapper of a chain."""
    while not isinstance(embedder, Limiting):
        assert isinstance(embedder, Wrapper)
        embedder = embedder.wrapped
    return embedder


class _Worker:
    def __init__(self, load: Load, settings: Settings, embedder: Embedder) -> None:
        self.outcome = Outcome()
        self._load, self._settings, self._embedder = load, settings, embedder
        self._texts = count()
        self._service: EmbeddingService | None = None

    async def run(self) -> None:
        if all(work.kind in ("requests", "holds") for work in self._load.works):
            await self._run()
        else:
            from embedding_pipeline.assembly.service import EmbeddingService

            key = self._load.key
            async with EmbeddingService(settings=self._settings, api_key=key) as self._service:
                await self._run()

    async def _run(self) -> None:
        await _warm(self._settings)
        print("ready", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.read)
        callers = {
            "requests": self._requests,
            "singles": self._singles,
            "backfill": self._bulk,
            "holds": self._hold,
        }
        lanes = [
            asyncio.create_task(self._from(work.start, callers[work.kind], work))
            for work in self._load.works
            for _ in range(work.lanes)
        ]
        _, late = await asyncio.wait(lanes, timeout=self._load.seconds)
        for lane in late:
            lane.cancel()
        for ended in await asyncio.gather(*lanes, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _from(self, start: float, caller: Any, work: Work) -> None:
        await asyncio.sleep(start)
        await caller(work)

    async def _requests(self, work: Work) -> None:
        text = "x" * 8_000
        texts = [text] * (work.tokens // 2_000) + ["y" * (4 * (work.tokens % 2_000))]
        texts = [text for text in texts if text]
        for _ in range(work.times) if work.times else count():
            began = time.monotonic()
            with on_behalf_of(work.project, Priority(work.priority)):
                await self._embedder.embed(texts)
            self._note(work.project, work.tokens, began)
            await asyncio.sleep(work.pause)

    async def _hold(self, work: Work) -> None:
        limiter = limiting_of(self._embedder).limiter
        for _ in range(work.times) if work.times else count():
            await limiter.acquire(work.tokens, Caller(work.project, Priority(work.priority)))

    async def _singles(self, work: Work) -> None:
        assert self._service is not None
        for _ in range(work.times) if work.times else count():
            began = time.monotonic()
            text = self._text(4 * work.tokens)
            await self._service.generate_embedding(
                text, project=work.project, priority=work.priority
            )
            self._note(work.project, work.tokens, began)
            await asyncio.sleep(work.pause)

    async def _bulk(self, work: Work) -> None:
        assert self._service is not None
        run = self._service.bulk(self._stream(work), priority=Priority(work.priority))
        async with aclosing(run.batches()) as batches:
            async for batch in batches:
                self._note(work.project, len(batch.work) * TEXT // 4, time.monotonic())

    async def _stream(self, work: Work) -> "AsyncIterator[WorkBatch]":
        from embedding_pipeline.service.work import WorkBatch

        account = Account(work.project, "", "2026-01-01")
        for number in count():
            texts = [self._text(TEXT) for _ in range(256)]
            ids = [f"{number}-{i}" for i in range(len(texts))]
            tokens = np.full(len(texts), TEXT // 4, np.int32)
            yield WorkBatch("2026-01-01", ids, texts, tokens, [account] * len(texts))

    def _text(self, size: int) -> str:
        """A text nobody had before."""
        head = f"{id(self)} {time.time_ns()} {next(self._texts)} "
        return (head + "word " * (size // 5 + 1))[:size]

    def _note(self, project: str, tokens: int, began: float) -> None:
        now = time.monotonic()
        self.outcome.answers.append(Answer(project, now, tokens, now - began))


async def _warm(settings: Settings) -> None:
    """Import the drivers and make the schema, before time counts."""
    import embedding_pipeline.embedders.sdk  # noqa: F401

    store = build_limit_store(settings, SystemClock())
    await store.states()
    await store.aclose()


async def _work(load: Load) -> Outcome:
    settings = load_settings(load.settings)
    async with build_embedder(settings, load.key, SystemClock()) as embedder:
        worker = _Worker(load, settings, embedder)
        await worker.run()
        worker.outcome.refusals = limiting_of(embedder).limiter.refusals.total()
    return worker.outcome


def _main() -> None:
    tree = json.loads(sys.argv[1])
    tree["works"] = [Work(**work) for work in tree["works"]]
    outcome = asyncio.run(_work(Load(**tree)))
    answers = [list(asdict(answer).values()) for answer in outcome.answers]
    print(json.dumps({"answers": answers, "refusals": outcome.refusals}))  # noqa: T201


if __name__ == "__main__":
    _main()
