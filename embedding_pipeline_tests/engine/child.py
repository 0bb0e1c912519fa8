"""``python -m embedding_pipeline_tests.engine.child DAY…``: runs in processes to be killed.

Settings and key come from the environment, as in real life. Each line of input starts one more
process; they are forked after the imports, which would otherwise be most of the work. Of each
is told: its number, that vectors have come in (``embedding``) or all are there (``done``), and
what ``waitpid`` said (``ended``).
"""

import asyncio
import os
import sys
import traceback

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.embedders import sdk
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.service.work import Progress
from embedding_pipeline.settings.loading import load_settings

LOADED = (sdk,)
"""Otherwise each child would load it."""


def _tell(*words: object) -> None:
    os.write(sys.stdout.fileno(), (" ".join(map(str, words)) + "\n").encode())


async def _run(days: list[str]) -> None:
    settings = load_settings()
    said: list[str] = []

    def tell(progress: Progress) -> None:
        if progress.embedded and not said:
            said.append("embedding")
            _tell("embedding")

    async with EmbeddingService.open(settings) as service:
        await build_embeddings(service, build_datasets(settings), days, on_progress=tell)
    _tell("done")


def _fork(days: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _tell(os.getpid())
        asyncio.run(_run(days))
    except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    for _ in sys.stdin:
        _tell("ended", os.waitpid(_fork(sys.argv[1:]), 0)[1])
