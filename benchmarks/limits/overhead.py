"""What a permit costs: the time from asking to having one that need not be waited for."""

import asyncio
import multiprocessing
import time
from typing import Any

from benchmarks.limits.stage import Figures, stage
from embedding_pipeline.assembly.embedder import build_limiter
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.limits.callers import Caller
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline_tests.limits.load import median, p99

ENDLESS: dict[str, Any] = {"requests_per_minute": 10_000_000, "tokens_per_minute": 1_000_000_000}
MOST_MS = {"sqlite": 5.0}
"""Promised for the embedded default; the others are there to be compared."""


def _acquire(settings: dict[str, Any], permits: int, gate: Any, results: Any) -> None:
    async def work() -> list[float]:
        limiter = build_limiter(load_settings(settings), SystemClock())
        times = []
        await limiter.acquire(1, Caller("p"))
        gate.wait(60)
        for _ in range(permits):
            began = time.perf_counter()
            permit = await limiter.acquire(1, Caller("p"))
            times.append(time.perf_counter() - began)
            limiter.settle(permit, None)
        await limiter.aclose()
        return times

    results.put(asyncio.run(work()))


def measure(store: str, processes: int = 4, permits: int = 1000) -> Figures:
    """All processes ask as fast as they can, one permit after the other."""
    context = multiprocessing.get_context("spawn")
    with stage(store, 1, 1, **ENDLESS, known=False) as here:
        results, gate = context.Queue(), context.Barrier(processes)
        arguments = (here.settings, permits, gate, results)
        workers = [context.Process(target=_acquire, args=arguments) for _ in range(processes)]
        for worker in workers:
            worker.start()
        times = sorted(t * 1000 for _ in workers for t in results.get(timeout=180))
        for worker in workers:
            worker.join()
    middle = median(times)
    return {
        "median_ms": round(middle, 2),
        "p99_ms": round(p99(times), 2),
        "permits_a_second": round(len(times) / (sum(times) / 1000 / processes)),
        "holds": middle < MOST_MS.get(store, float("inf")),
    }
