"""``python -m embedding_pipeline_tests.service.child FOLDER NAME STUCK_AT``: one process of two.

Embeds 500 texts that every such process wants, and writes down what was billed before it
answers, so that the bill survives its end. From its call number STUCK_AT on (from 0; -1 for
never) it is billed and never answers, to be killed then.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from embedding_pipeline.clock import SystemClock
from embedding_pipeline.records import EmbeddingResult
from embedding_pipeline_tests.service.harness import Provider, open_service
from embedding_pipeline_tests.service.streams import batch, drain, stream

TEXTS = [f"text {n:03d}" for n in range(500)]


class Billed(Provider):
    """Appends each text to a file before it answers."""

    def __init__(self, bill: Path, stuck_at: int) -> None:
        super().__init__()
        self._bill = bill
        self._stuck_at = stuck_at

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        number = len(self.calls)
        result = await super().embed(texts)
        line = "".join(f"{text}\n" for text in texts)
        file = os.open(self._bill, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(file, line.encode())
        os.close(file)
        if 0 <= self._stuck_at <= number:
            print("stuck", flush=True)  # noqa: T201
            await asyncio.Event().wait()
        return result


async def _run(folder: Path, name: str, stuck_at: int) -> None:
    provider = Billed(folder / f"{name}.bill", stuck_at)
    clock = SystemClock()
    batches = [batch(TEXTS[n : n + 50], n) for n in range(0, 500, 50)]
    async with open_service(folder, provider, clock, run_id=name) as service:
        print("open", flush=True)  # noqa: T201
        sys.stdin.readline()
        filled = await drain(service.bulk(stream(batches)))
    print(sum(len(one.work) for one in filled), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
