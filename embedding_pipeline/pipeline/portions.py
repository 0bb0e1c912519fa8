"""Batches of work read a portion at a time: a small day is not worth a thread of its own.

Belongs here: how much is read in one go. Does not belong here: reading.
"""

from collections.abc import Iterator
from typing import Final

from embedding_pipeline.service.work import WorkBatch
from embedding_pipeline.vectors.partition import BATCH_ROWS

MOST: Final = 32
"""Batches in a portion; days without chunks have no rows to be counted by."""


class Portions:
    """Work in portions of about a batch's rows, in order.

    What cannot be read is reported after what comes before it was handed out.
    """

    def __init__(self, works: Iterator[WorkBatch]) -> None:
        self._works = works
        self._error: Exception | None = None

    def next(self) -> list[WorkBatch]:
        """The next portion; empty at the end. Raises what the reading raises."""
        if self._error is not None:
            raise self._error
        portion: list[WorkBatch] = []
        try:
            for work in self._works:
                portion.append(work)
                if len(portion) == MOST or sum(map(len, portion)) >= BATCH_ROWS:
                    break
        except Exception as error:
            if not portion:
                raise
            self._error = error
        return portion
