"""The ends of days: their files are synced while the next days are worked on.

Belongs here: how many at once, their order, and that none is left under way. Does not belong
here: what ends a day (``embed``).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from embedding_pipeline.pipeline.reports import EmbedReport
from embedding_pipeline.service.finishing import finish

AT_ONCE: Final = 4
"""Days that end at the same time; each holds a row group at most."""


class Closing:
    """Days that are ending, told of in the order in which they were handed in.

    Args:
        on_partition: told of each that has ended well.
    """

    def __init__(self, on_partition: Callable[[EmbedReport], None] | None) -> None:
        self.threads: Final = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="closing")
        self._on_partition = on_partition
        self._tasks: deque[asyncio.Task[EmbedReport]] = deque()
        self._reports: list[EmbedReport] = []

    async def add(self, ending: Coroutine[Any, Any, EmbedReport]) -> None:
        """Hand a day in, and wait while too many are ending.

        Raises what ended one of the days handed in before.
        """
        self._tasks.append(asyncio.ensure_future(ending))
        while len(self._tasks) > AT_ONCE or (self._tasks and self._tasks[0].done()):
            await self._first()

    async def reports(self) -> tuple[EmbedReport, ...]:
        """Wait for all, and give their reports in order. Raises like ``add``."""
        while self._tasks:
            await self._first()
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
                    self._tell(task.result())

    async def _first(self) -> None:
        task = self._tasks[0]
        await asyncio.wait({task})
        del self._tasks[0]
        self._tell(task.result())

    def _tell(self, report: EmbedReport) -> None:
        self._reports.append(report)
        if self._on_partition is not None:
            self._on_partition(report)


async def _all_done(*tasks: asyncio.Task[EmbedReport]) -> None:
    await asyncio.wait(tasks)
