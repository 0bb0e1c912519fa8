"""Work that would block the loop, in one thread of its own.

Belongs here: the thread. Does not belong here: what it does.

One, not the loop's pool of several: allocators keep a heap for every thread, each of which
grows to the largest buffers it ever held. A run's steps (read, hash, write) follow each
other anyway, and together take a fraction of what a request does.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """A thread for blocking steps. Used in one event loop; a step must not wait for another."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="aside")

    async def run(self, step: Callable[..., T], *arguments: object) -> T:
        """Do ``step(*arguments)`` after the steps before it. A cancelled caller does not end it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, step, *arguments)

    def close(self) -> None:
        """Finish what is under way. Safe to call twice."""
        self._thread.shutdown(wait=True)
