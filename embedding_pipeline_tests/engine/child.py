"""``python -m embedding_pipeline_tests.engine.child DAY…``: one run, in a process to be killed.

Settings and key come from the environment, as in real life.
"""

import asyncio
import sys

from embedding_pipeline.assembly import EmbeddingService, build_datasets
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.settings import load_settings


async def _run(days: list[str]) -> None:
    settings = load_settings()
    async with EmbeddingService.open(settings) as service:
        print("open", flush=True)  # noqa: T201
        reports = await build_embeddings(service, build_datasets(settings), days)
    print(sum(report.embedded for report in reports), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1:]))
