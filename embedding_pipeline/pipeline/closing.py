"""The ends of days: their files are synced while the next days are worked on.

Belongs here: how many at once, their order, that none is left under way, and that the books of
those that end together are set right together. Does not belong here: what ends a day (``embed``).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from embedding_pipeline.errors import EmbeddingPipelineError
from embedding_pipeline.pipeline.reports import EmbedReport
from embedding_pipeline.service.finishing import finish

AT_ONCE: Final = 4
"""Days that end at the same time; each holds a row group at most."""

TOGETHER: Final = 16
"""Days whose books are set right in one transaction; until then they are not told of."""


@dataclass(frozen=True)
class Ended:
    """A day whose file is in place.

    Attributes:
        report: what is told of it.
        pass_id: the pass that made it; what earlier ones left for later is done.
        refused: its chunks that stay in quarantine.
    """

    report: EmbedReport
    pass_id: str = ""
    refused: frozenset[str] = field(default_factory=frozenset)


class Closing:
    """Days that are ending, told of in the order in which they were handed in.

    Args:
        settle: sets right what the books say of days that have ended; may be asked again
            about the same ones.
        on_partition: told of each that has ended well.
    """

    def __init__(
        self,
        settle: Callable[[Sequence[Ended]], Awaitable[None]],
        on_partition: Callable[[EmbedReport], None] | None,
    ) -> None:
        self.threads: Final = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="closing")
        self._settle = settle
        self._on_partition = on_partition
        self._tasks: deque[asyncio.Task[Ended]] = deque()
        self._ended: list[Ended] = []
        self._reports: list[EmbedReport] = []

    async def add(self, ending: Coroutine[Any, Any, Ended]) -> None:
        """Hand a day in, and wait while too many are ending.

        Raises what ended one of the days handed in before.
        """
        self._tasks.append(asyncio.ensure_future(ending))
        while len(self._tasks) > AT_ONCE or (self._tasks and self._tasks[0].done()):
            await self._first()
        if len(self._ended) >= TOGETHER:
            await self._tell()

    async def reports(self) -> tuple[EmbedReport, ...]:
        """Wait for all, and give their reports in order. Raises like ``add``."""
        while self._tasks:
            await self._first()
        await self._tell()
        return tuple(self._reports)

    async def end(self) -> None:
        """Whatever happened: what is under way ends, and is told of where it ends well."""
        try:
            if self._tasks:
                await finish(_all_done(*self._tasks))
        finally:
            self.threads.shutdown(wait=False)
            for task in self._tasks:
                if task.done() and not task.cancelled() and task.exception() is None:
                    self._ended.append(task.result())
            self._tasks.clear()
            with suppress(EmbeddingPipelineError):  # what ended the run is the news
                await finish(self._tell())

    async def _first(self) -> None:
        task = self._tasks[0]
        await asyncio.wait({task})
        del self._tasks[0]
        self._ended.append(task.result())

    async def _tell(self) -> None:
        ended = list(self._ended)
        if not ended:
            return
        await self._settle(ended)
        del self._ended[: len(ended)]
        for one in ended:
            self._reports.append(one.report)
            if self._on_partition is not None:
                self._on_partition(one.report)


async def _all_done(*tasks: asyncio.Task[Ended]) -> None:
    await asyncio.wait(tasks)
