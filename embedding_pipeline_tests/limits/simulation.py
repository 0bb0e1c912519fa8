"""Many processes, one provider, and hours that pass in no time: the limiter as a whole.

Belongs here: an in-memory store, a provider that keeps exact buckets, and callers that
never run out of work. Everything else is the real thing.
"""

import asyncio
import random
import selectors
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.embedders.limiting import Limiting
from embedding_pipeline.embedders.policy import Refusal, rate_headers, retry_after, to_error
from embedding_pipeline.embedders.retrying import Retrying
from embedding_pipeline.limits.base import LimitStore
from embedding_pipeline.limits.callers import Tenants, current_caller, on_behalf_of
from embedding_pipeline.limits.limiter import Limiter
from embedding_pipeline.limits.protocol import Answer, Ask, Terms
from embedding_pipeline.limits.sharing import exchange
from embedding_pipeline.limits.state import State
from embedding_pipeline.records import EmbeddingResult, Priority, Space, Usage
from embedding_pipeline_tests.fake_openai.buckets import Limits

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Where a loop would wait, its time jumps instead."""

    loop: "_Loop"

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout:
            self.loop.elapsed += timeout
        return events


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.elapsed = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.elapsed


class VirtualClock:
    """The time of a loop that never waits: exact, whatever the number of tasks."""

    def now(self) -> float:
        return 1_790_000_000.0 + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def in_no_time(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end; sleeping takes no time."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)


SPACE = Space("fake", "m", "", 2)


class MemoryLimits(LimitStore):
    """What every backend does, within one process."""

    def __init__(self, clock: VirtualClock) -> None:
        self.kept: dict[str, State] = {}
        self._clock = clock

    async def exchange(self, key: str, terms: Terms, ask: Ask) -> Answer:
        now = int(self._clock.now() * 1000)
        self.kept[key], answer = exchange(self.kept.get(key), terms, ask, now)
        await asyncio.sleep(0)
        return answer

    async def states(self) -> Mapping[str, State]:
        return self.kept


@dataclass
class Books:
    """What the provider saw."""

    tokens: int = 0
    refused: list[float] = field(default_factory=list)
    by_project: Counter[str] = field(default_factory=Counter)
    served_at: list[tuple[float, int]] = field(default_factory=list)


class Provider(Embedder):
    """Enforces continuous-refill buckets on bytes / 4, with exact headers or none.

    A share of ``mishaps`` is refused all the same, whatever the rate.
    """

    space = SPACE

    def __init__(
        self,
        clock: VirtualClock,
        limits: Limits,
        latency: float = 0.3,
        headers: bool = True,
        mishaps: float = 0.0,
    ) -> None:
        self.books = Books()
        self.limits = limits
        self.headers = headers
        self._clock = clock
        self._latency = latency
        self._mishaps, self._random = mishaps, random.Random(1)

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        await self._clock.sleep(self._latency / 2)
        cost = sum(-(-len(text) // 4) for text in texts)
        if self._random.random() < self._mishaps:
            self.books.refused.append(self._clock.monotonic())
            raise to_error(Refusal(429, "tokens", "rate_limit_exceeded", retry_after=1.0), "fake")
        refusal, headers = self.limits.admit("m", cost, self._clock.monotonic())
        if refusal is None:
            self.books.tokens += cost
            self.books.by_project[current_caller().project] += cost
            self.books.served_at.append((self._clock.monotonic(), cost))
        else:
            self.books.refused.append(self._clock.monotonic())
        await self._clock.sleep(self._latency / 2)
        told = rate_headers(headers) if self.headers else {}
        if refusal is None:
            vectors = np.zeros((len(texts), 2), np.float32)
            return EmbeddingResult(vectors, Usage(cost), "fake", rate_headers=told)
        wait = retry_after(refusal.headers, self._clock.now())
        kind = "tokens" if b"TPM" in refusal.body else "requests"
        said = Refusal(429, kind, "rate_limit_exceeded", retry_after=wait, rate_headers=told)
        raise to_error(said, "fake")


@dataclass
class World:
    """One provider, several processes, one clock."""

    clock: VirtualClock
    provider: Provider
    store: MemoryLimits
    processes: list[Embedder]
    limiters: list[Limiter]
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def backlog(
        self,
        process: int,
        tokens: int,
        *,
        project: str = "p",
        priority: Priority = Priority.BULK,
        lanes: int = 16,
        start: float = 0.0,
        count: int = 10**9,
        every: float = 0.0,
    ) -> None:
        """Requests one after another in each of ``lanes``, ``count`` in all."""
        left = [count]

        async def lane() -> None:
            await self.clock.sleep(start)
            while left[0] > 0:
                left[0] -= 1
                began = self.clock.monotonic()
                with on_behalf_of(project, priority):
                    await self.processes[process].embed(["x" * (4 * tokens)])
                self.waits[project].append(self.clock.monotonic() - began)
                if every:
                    await self.clock.sleep(every)

        self._tasks += [asyncio.create_task(lane()) for _ in range(lanes)]

    async def run(self, seconds: float) -> None:
        """Let time pass; an error of any lane is raised."""
        await self.clock.sleep(seconds)
        for task in self._tasks:
            if task.done():
                task.result()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def world(
    clock: VirtualClock,
    provider: Provider,
    processes: int,
    terms: Terms,
    tenants: Tenants | None = None,
) -> AsyncIterator[World]:
    """Processes that share one limit, and callers to be added."""
    store = MemoryLimits(clock)
    limiters = [
        Limiter(store, "k", "fake", terms, clock, tenants=tenants) for _ in range(processes)
    ]
    chains: list[Embedder] = [
        Retrying(Limiting(provider, limiter), RetryConfig(), clock, random.Random(i))
        for i, limiter in enumerate(limiters)
    ]
    made = World(clock, provider, store, chains, limiters)
    try:
        yield made
    finally:
        await made.stop()
        for chain in chains:
            await chain.aclose()
