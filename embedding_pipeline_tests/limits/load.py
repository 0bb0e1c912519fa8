"""``python -m embedding_pipeline_tests.limits.load``: one process with a backlog, for a while.

Used by tests that need real processes, and by the benchmark. The one argument is JSON,
see ``Load``; the one line printed is JSON as well.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedding_pipeline.assembly.embedder import build_embedder, build_limit_store
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.embedders.base import Embedder, Wrapper
from embedding_pipeline.embedders.limiting import Limiting
from embedding_pipeline.limits.base import LimitStore
from embedding_pipeline.limits.callers import on_behalf_of
from embedding_pipeline.records import Priority
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline_tests.fake_openai.server import KEY

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Load:
    """What a process does.

    Attributes:
        settings: a settings tree.
        seconds: for how long, from the first call on.
        tokens: of one request, as bytes / 4.
        lanes: callers at once.
        project, priority: on whose behalf.
        pause: seconds a caller rests after each answer.
    """

    settings: Mapping[str, Any]
    seconds: float
    tokens: int = 10_000
    lanes: int = 16
    project: str = "p"
    priority: str = "bulk"
    pause: float = 0.0


@dataclass
class Outcome:
    """What came of it: tokens served, how long callers waited (sorted), 429s met."""

    tokens: int = 0
    waits: list[float] = field(default_factory=list)
    refusals: int = 0

    @property
    def median_wait(self) -> float:
        return statistics.median(self.waits)

    @property
    def p99_wait(self) -> float:
        return self.waits[min(len(self.waits) - 1, len(self.waits) * 99 // 100)]


def start(load: Load) -> "subprocess.Popen[str]":
    """The process; it works once its standard input is closed, so that many begin together."""
    command = [sys.executable, "-m", "embedding_pipeline_tests.limits.load"]
    return subprocess.Popen(
        [*command, json.dumps(asdict(load))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(processes: Sequence["subprocess.Popen[str]"]) -> None:
    """Wait until all are ready, then let them begin."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()


def finish(process: "subprocess.Popen[str]", seconds: float) -> Outcome:
    """Its outcome; an error when it ends with one or takes longer."""
    process.stdin = None
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == 0, f"ended with {process.returncode}"
    return Outcome(**json.loads(output))


async def _lane(load: Load, embedder: Embedder, outcome: Outcome, end: float) -> None:
    text = "x" * 8_000
    texts = [text] * (load.tokens // 2_000) + ["y" * (4 * (load.tokens % 2_000))]
    texts = [text for text in texts if text]
    while (began := time.monotonic()) < end:
        with on_behalf_of(load.project, Priority(load.priority)):
            await embedder.embed(texts)
        outcome.waits.append(time.monotonic() - began)
        outcome.tokens += load.tokens
        if load.pause:
            await asyncio.sleep(load.pause)


def limiting_of(embedder: Embedder) -> Limiting:
    """The limiting wrapper of a chain."""
    while not isinstance(embedder, Limiting):
        assert isinstance(embedder, Wrapper)
        embedder = embedder.wrapped
    return embedder


async def _warm(store: LimitStore) -> None:
    """Import the driver and make the schema, before time counts."""
    await store.states()
    await store.aclose()


async def _work(load: Load) -> Outcome:
    outcome = Outcome()
    settings = load_settings(load.settings)
    async with build_embedder(settings, KEY, SystemClock()) as embedder:
        import embedding_pipeline.embedders.sdk  # noqa: F401 - so that all begin at once

        await _warm(build_limit_store(settings, SystemClock()))

        print("ready", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.read)
        end = time.monotonic() + load.seconds
        each = (_lane(load, embedder, outcome, end) for _ in range(load.lanes))
        lanes = [asyncio.create_task(lane) for lane in each]
        _, late = await asyncio.wait(lanes, timeout=load.seconds)
        for lane in late:
            lane.cancel()
        for ended in await asyncio.gather(*lanes, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        outcome.refusals = limiting_of(embedder).limiter.refusals.total()
    outcome.waits.sort()
    return outcome


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(_work(Load(**json.loads(sys.argv[1])))))))  # noqa: T201
