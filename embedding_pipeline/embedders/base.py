"""The one interface every embedder and every wrapper implements.

Belongs here: the contract. Does not belong here: any provider, any policy.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from embedding_pipeline.records import EmbeddingResult, Space


class Embedder(ABC):
    """Turns texts into vectors of one space.

    An embedder is opened and closed in one event loop (``async with``). It may be
    called concurrently. It never returns a partial or reordered answer: either every
    row of the result belongs to the text at its index, or it raises an error of
    ``embedding_pipeline.errors``.
    """

    space: Space
    """The space of every vector this embedder returns."""

    @abstractmethod
    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        """Embed ``texts`` (at least one) in one request, in order."""

    async def aclose(self) -> None:
        """Give connections back. Safe to call twice."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class Wrapper(Embedder):
    """An embedder around another: override ``embed``, keep everything else.

    The order of wrappers is stated once, in ``assembly``:
    retrying → fallback → per provider [breaking → stopping → limiting → leaf].
    """

    def __init__(self, wrapped: Embedder) -> None:
        self.wrapped = wrapped
        self.space = wrapped.space

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        return await self.wrapped.embed(texts)

    async def aclose(self) -> None:
        await self.wrapped.aclose()
