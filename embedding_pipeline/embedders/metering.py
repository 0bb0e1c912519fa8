"""Tells an observer how every call ended.

Belongs here: the hook. Does not belong here: the ledger, metrics or logs that listen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.base import Embedder, Wrapper
from embedding_pipeline.records import EmbeddingResult


@dataclass(frozen=True)
class Observation:
    """One call, seen from outside.

    Attributes:
        texts: how many texts it was for.
        seconds: how long it took, waits included.
        result: what it delivered; its ``attempts`` say what failed before.
        error: why it delivered nothing: a ``ProviderError`` with its ``attempts``, or a
            cancellation. Exactly one of result and error is set.
    """

    texts: int
    seconds: float
    result: EmbeddingResult | None = None
    error: BaseException | None = None


Observer = Callable[[Observation], None]
"""Must not block and must not raise: what it raises takes the place of the outcome."""


class Metering(Wrapper):
    """Hands every outcome to an observer, then to the caller."""

    def __init__(self, wrapped: Embedder, observer: Observer, clock: Clock) -> None:
        super().__init__(wrapped)
        self._observer = observer
        self._clock = clock

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        began = self._clock.monotonic()
        try:
            result = await self.wrapped.embed(texts)
        except BaseException as error:
            seconds = self._clock.monotonic() - began
            self._observer(Observation(len(texts), seconds, error=error))
            raise
        seconds = self._clock.monotonic() - began
        self._observer(Observation(len(texts), seconds, result))
        return result
