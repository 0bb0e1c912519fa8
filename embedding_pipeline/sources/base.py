"""The one interface every source implements.

Belongs here: the contract. Does not belong here: any format, any place. What a
source delivers (``Row``, ``Document``, ``Rejected``) is in ``records``, since
chunking receives it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import date
from typing import TypeAlias

from embedding_pipeline.records import Document, Rejected, Row

Item: TypeAlias = Row | Document | Rejected
"""What a source delivers, in the order it stands there."""


class ChunkSource(ABC):
    """Chunks or documents that arrive day by day."""

    @abstractmethod
    def read(self, day: date) -> Iterator[Item]:
        """Everything that belongs to ``day``, streamed; nothing for a day without data.

        Blocking: callers run it in a thread. The same day read again delivers the same,
        as long as the data is the same. What cannot be used is a ``Rejected`` in its
        place and takes nothing else down with it.

        Raises:
            SourceError: the data cannot be reached at all; says which path and what to do.
        """

    def stamp(self, day: date) -> str:  # noqa: ARG002 - for those that can tell
        """What the day's source looks like, cheaply; "" where it cannot tell.

        The same stamp means the same data. Another may mean that something was only
        touched. Blocking. Raises SourceError like ``read``.
        """
        return ""
