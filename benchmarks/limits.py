"""The shared rate limit under load: real processes, a server that enforces exact buckets.

    python benchmarks/limits.py [--seconds 60] [--processes 1 2 4 8] [--stores sqlite redis]

For each store, limit and number of processes, with known and with unknown limits: 429s, and
the tokens used of what the limit allows in a window after the opening burst. Then the
overhead of a permit. Ends with a table; needs the development dependencies.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from embedding_pipeline.assembly.embedder import build_limiter  # noqa: E402
from embedding_pipeline.clock import SystemClock  # noqa: E402
from embedding_pipeline.limits.callers import Caller  # noqa: E402
from embedding_pipeline.settings.loading import load_settings  # noqa: E402
from embedding_pipeline_tests import servers  # noqa: E402
from embedding_pipeline_tests.fake_openai.process import FakeProcess, process  # noqa: E402
from embedding_pipeline_tests.limits import load  # noqa: E402
from embedding_pipeline_tests.limits.load import Load  # noqa: E402

LIMITS = ((500, 1_000_000), (3_000, 5_000_000))
WARM_UP = 3.0
LATENCY = 0.3


@contextmanager
def store_of(kind: str) -> Iterator[dict[str, Any]]:
    """Settings that put the limits into a fresh store of this kind."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ep-"))
        settings: dict[str, Any] = {"data_dir": folder}
        if kind == "postgres":
            settings["state_url"] = stack.enter_context(servers.postgres())
        if kind == "redis":
            settings["redis_url"] = stack.enter_context(servers.redis())
        yield settings


def settings_for(
    fake: FakeProcess, store: dict[str, Any], limits: dict[str, Any]
) -> dict[str, Any]:
    """A settings tree for the fake server."""
    provider = {"name": "openai", "kind": "openai", "base_url": fake.base_url}
    return {
        **store,
        "embedding": {"model": "openai/text-embedding-3-small"},
        "providers": [provider],
        "limits": {"burst_seconds": 1, **limits},
    }


def run(kind: str, count: int, rpm: int, tpm: int, known: bool, seconds: float) -> str:
    """One line of the table."""
    with store_of(kind) as store, process("--precomputed", "--latency", str(LATENCY)) as fake:
        fake.limit(rpm=rpm, tpm=tpm)
        limits = {"requests_per_minute": rpm, "tokens_per_minute": tpm} if known else {}
        job = Load(settings_for(fake, store, limits), seconds + 2 * WARM_UP)
        running = [load.start(job) for _ in range(count)]
        load.go(running)
        time.sleep(WARM_UP)
        before, began = fake.books.tokens, time.monotonic()
        time.sleep(seconds)
        used, took = fake.books.tokens - before, time.monotonic() - began
        outcomes = [load.finish(worker, 60) for worker in running]
        refused = fake.books.statuses["429"]
    share = used / (tpm / 60 * took)
    told = "known" if known else "learned"
    served = sum(outcome.tokens for outcome in outcomes)
    return f"{kind:9}{count:>5}{rpm:>7,}{tpm:>11,} {told:8}{refused:>5}{share:>9.1%}{served:>12,}"


def _acquire(settings: dict[str, Any], permits: int, results: Any) -> None:
    async def work() -> list[float]:
        limiter = build_limiter(load_settings(settings), SystemClock())
        times = []
        await limiter.acquire(1, Caller("p"))
        for _ in range(permits):
            began = time.perf_counter()
            limiter.give_back(await limiter.acquire(1, Caller("p")))
            times.append(time.perf_counter() - began)
        await limiter.aclose()
        return times

    results.put(asyncio.run(work()))


def overhead(kind: str, count: int = 4, permits: int = 500) -> str:
    """Time of a permit that need not wait, all processes asking as fast as they can."""
    context = multiprocessing.get_context("spawn")
    with store_of(kind) as store:
        provider = {"name": "openai", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}
        settings = {
            **store,
            "embedding": {"model": "openai/text-embedding-3-small"},
            "providers": [provider],
            "limits": {"requests_per_minute": 10_000_000, "tokens_per_minute": 1_000_000_000},
        }
        results = context.Queue()
        workers = [
            context.Process(target=_acquire, args=(settings, permits, results))
            for _ in range(count)
        ]
        for worker in workers:
            worker.start()
        times = sorted(t for _ in workers for t in results.get(timeout=120))
        for worker in workers:
            worker.join()
    median, p99 = statistics.median(times) * 1000, times[len(times) * 99 // 100] * 1000
    return f"{kind:9} {count} processes: median {median:.2f} ms, 99th percentile {p99:.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--stores", nargs="+", default=["sqlite", "postgres", "redis"])
    parser.add_argument("--overhead-only", action="store_true")
    arguments = parser.parse_args()
    for kind in arguments.stores:
        print(overhead(kind), flush=True)
    if arguments.overhead_only:
        return
    print("store    procs    RPM        TPM limits     429    used  tokens in all")
    for kind in arguments.stores:
        for rpm, tpm in LIMITS:
            for count in arguments.processes:
                for known in (True, False):
                    print(run(kind, count, rpm, tpm, known, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
