"""An embedder that does what a script says, for the tests of wrappers."""

import asyncio
from collections.abc import Iterable, Sequence

from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.fake import fake_vectors
from embedding_pipeline.errors import ProviderError, ProviderFault
from embedding_pipeline.records import EmbeddingResult, Space, Usage

OK = None


class Scripted(Embedder):
    """Each call takes the next step: ``OK`` answers, an error is raised; the last step stays."""

    def __init__(self, steps: Iterable[ProviderError | None]) -> None:
        self.space = Space("fake", "scripted", "", 4)
        self.calls = 0
        self._steps = list(steps)
        self.gate: asyncio.Event | None = None
        self.closed = 0

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        step = self._steps[min(self.calls, len(self._steps) - 1)]
        self.calls += 1
        if self.gate is not None:
            await self.gate.wait()
        if step is not None:
            raise step
        return EmbeddingResult(fake_vectors("scripted", texts, 4), Usage(len(texts)), "scripted")

    async def aclose(self) -> None:
        self.closed += 1


def error(
    kind: type[ProviderError], retry_after: float | None = None, **fault: object
) -> ProviderError:
    """An error of a provider called p."""
    return kind("something", ProviderFault("p", retry_after=retry_after, **fault))  # type: ignore[arg-type]
