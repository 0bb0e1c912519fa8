"""``python -m embedding_pipeline_tests.service.spender JSON``: one of many that share a budget.

Some workers, each a bulk run over texts of its own, with requests of five texts. What is
billed, a little less than what is reserved, is written down before the answer, so that the
bill survives the process.
"""

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from datetime import UTC
from typing import Self

from embedding_pipeline.clock import SystemClock
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.ledger.config import BudgetConfig
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import EmbeddingResult, Kind, Usage
from embedding_pipeline.service.bulk import BulkRun
from embedding_pipeline.service.config import ServiceConfig
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.service.work import FilledBatch, Row
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import (
    MAX_TOKENS,
    PRICE,
    SPEC,
    WIDTH,
    Provider,
    rules,
)
from embedding_pipeline_tests.service.streams import batch, stream

A_REQUEST = 5
"""Texts in one request."""


@dataclass(frozen=True)
class Job:
    """What one process does.

    Attributes:
        url: the shared store.
        bill: the file for what was billed, a number of tokens a line.
        name: sets its texts apart from those of others.
        workers: bulk runs at a time.
        texts: of each worker, 40 tokens each.
        limit: the budget, in tokens.
        latency: seconds of each request.
        stuck: a file to write when a request is billed whose answer never comes; without it,
            every answer comes.
    """

    url: str
    bill: str
    name: str
    workers: int
    texts: int
    limit: int
    latency: float = 0.02
    stuck: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of ``str``."""
        return cls(**json.loads(text))

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @property
    def budgets(self) -> Budgets:
        """One budget over everything."""
        usd = self.limit * PRICE / 1e9
        return Budgets((BudgetConfig(scope="all", period="total", limit_usd=usd),), UTC)


class Billing(Provider):
    """Takes its time, and bills 95 % of the tokens."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        result = await super().embed(texts)
        billed = result.usage.input_tokens * 95 // 100
        file = os.open(self._job.bill, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, f"{billed}\n".encode())
        os.close(file)
        if self._job.stuck:
            os.close(os.open(self._job.stuck, os.O_WRONLY | os.O_CREAT))
            await asyncio.Event().wait()
        await asyncio.sleep(self._job.latency)
        return EmbeddingResult(result.vectors, Usage(billed), "fake")


async def run(job: Job) -> dict[str, int]:
    """Do it; returns how many texts ended how."""
    config = ServiceConfig(
        spec=SPEC,
        kind=Kind.API,
        provider="fake",
        dimensions=WIDTH,
        caps=RequestCaps(A_REQUEST, MAX_TOKENS, 1024),
        rules=rules(),
        max_in_flight=job.workers,
        budgets=job.budgets,
    )
    clock = SystemClock()
    async with ServiceCore(config, Store(job.url, clock), Billing(job), clock) as service:
        print("open", flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.readline)
        runs = [service.bulk(stream(_work(job, worker))) for worker in range(job.workers)]
        filled = [one for done in await asyncio.gather(*map(_drain, runs)) for one in done]
    ends = [int(status) for one in filled for status in one.status]
    return {row.name.lower(): ends.count(row) for row in Row}


async def _drain(run: BulkRun) -> list[FilledBatch]:
    async with aclosing(run.batches()) as batches:
        return [one async for one in batches]


def _work(job: Job, worker: int) -> list:  # type: ignore[type-arg]
    texts = [f"{job.name} {worker:03} {n:05} ".ljust(40, "x") for n in range(job.texts)]
    return [batch(texts[n : n + 20], n) for n in range(0, len(texts), 20)]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(Job.parse(sys.argv[1])))))  # noqa: T201
