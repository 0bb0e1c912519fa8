"""What the limiter and its stores say to each other.

Belongs here: the question, the answer, and the interface of a store. Does not belong
here: arithmetic (``buckets``, ``sharing``), or any backend.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from embedding_pipeline.limits.protocol import Answer, Ask, Terms
from embedding_pipeline.limits.state import State


class LimitStore(ABC):
    """Holds the state of every limit, for all processes.

    ``exchange`` is one atomic step on the state of one key: whatever the backend, it does
    what ``sharing.exchange`` does, at the backend's own time where it has one.
    """

    @abstractmethod
    async def exchange(self, key: str, terms: Terms, ask: Ask) -> Answer:
        """Take part in the state of ``key``. Raises StateError and ConfigurationError."""

    @abstractmethod
    async def states(self) -> Mapping[str, State]:
        """Every key's state as it was last written, for reports. Raises as ``exchange``."""

    async def aclose(self) -> None:
        """Give connections back. Safe to call twice."""
