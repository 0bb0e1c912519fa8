"""``python -m embedding_pipeline_tests.engine.child DAY…``: one run, in a process to be killed.

Settings and key come from the environment, as in real life. The first line says that vectors
have come in (``embedding``), or that there was nothing left to do (``done``).
"""

import asyncio
import sys

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.service.work import Progress
from embedding_pipeline.settings.loading import load_settings


async def _run(days: list[str]) -> None:
    settings = load_settings()
    said: list[str] = []

    def tell(progress: Progress) -> None:
        if progress.embedded and not said:
            said.append("embedding")
            print("embedding", flush=True)  # noqa: T201

    async with EmbeddingService.open(settings) as service:
        await build_embeddings(service, build_datasets(settings), days, on_progress=tell)
    print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1:]))
