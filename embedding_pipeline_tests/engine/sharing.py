"""``python -m embedding_pipeline_tests.engine.sharing PROCESSES TEXTS KILL``: the same for all.

So many processes embed the same texts at once, with settings and key from the environment;
with KILL (0 or 1) the first of them is killed when it is half way. Prints one line of JSON:
what the others were handed, and how much of it was wrong. They are forked after the imports,
which would otherwise be most of the work.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from typing import IO

import numpy as np

from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.cache import redis as redis_cache
from embedding_pipeline.embedders import breaking, limiting, retrying, sdk, stopping
from embedding_pipeline.limits import redis as redis_limits
from embedding_pipeline.records import Account
from embedding_pipeline.service.work import Progress, Row, WorkBatch
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.tokens import default_counter
from embedding_pipeline_tests.fake_openai.replies import expected_vector

LOADED = (sdk, breaking, limiting, retrying, stopping, redis_cache, redis_limits)
"""Otherwise each process would load them."""

MODEL = "text-embedding-3-small"
DAY = "2026-01-01"
BATCH = 100


def text(number: int) -> str:
    """The n-th text."""
    return f"chunk {number}: what several processes want to have at the same time"


async def batches(texts: list[str]) -> AsyncIterator[WorkBatch]:
    """The texts as work of one day."""
    for start in range(0, len(texts), BATCH):
        part = texts[start : start + BATCH]
        names = [str(start + i) for i in range(len(part))]
        accounts = [Account("shared", "", DAY)] * len(part)
        yield WorkBatch(DAY, names, part, default_counter().count(part), accounts)


async def _embed(count: int, tell: Callable[[str], None], go: IO[str]) -> None:
    texts = [text(number) for number in range(count)]
    rows = wrong = 0

    def report(progress: Progress) -> None:
        if progress.done * 2 >= count:
            tell("half")

    async with EmbeddingService.open(load_settings()) as service:
        tell("open")
        go.readline()
        run = service.bulk(batches(texts), on_progress=report)
        async for filled in run.batches():
            for own, vector, status in zip(
                filled.work.texts, filled.vectors, filled.status, strict=True
            ):
                right = np.array_equal(vector, expected_vector(MODEL, own, 1536))
                rows += 1
                wrong += status == Row.REFUSED or not right
    tell(json.dumps({"rows": rows, "wrong": int(wrong)}))


class Worker:
    """A forked process and the lines it says."""

    def __init__(self, count: int) -> None:
        back, out = os.pipe()
        wait, start = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(start)
            said: set[str] = set()

            def tell(line: str) -> None:
                if line not in said:
                    said.add(line)
                    os.write(out, f"{line}\n".encode())

            with os.fdopen(wait) as go:
                asyncio.run(_embed(count, tell, go))
            os._exit(0)
        os.close(out)
        os.close(wait)
        self.lines, self.start = os.fdopen(back), start

    def expect(self, line: str) -> None:
        """Wait until it says this."""
        said = self.lines.readline().strip()
        if said != line:
            raise SystemExit(f"a worker said {said!r} instead of {line!r}")


def _main(processes: int, count: int, kill: bool) -> None:
    workers = [Worker(count) for _ in range(processes)]
    for worker in workers:
        worker.expect("open")
    for worker in workers:  # a line, no end of input: those forked later hold its pipe open, too
        os.write(worker.start, b"go\n")
    if kill:
        victim = workers.pop(0)
        victim.expect("half")
        os.kill(victim.pid, signal.SIGKILL)
        os.waitpid(victim.pid, 0)
    for worker in workers:
        worker.expect("half")
    results = [json.loads(worker.lines.readline()) for worker in workers]
    for worker in workers:
        os.waitpid(worker.pid, 0)
    print(json.dumps(results))  # noqa: T201


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1")
