"""Running something to its end, whoever loses patience.

Belongs here: the one guard for steps that must not stop half way, because money or other
processes depend on their outcome. Does not belong here: the steps.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Await ``work`` to its end even when the caller is cancelled, and be cancelled then.

    ``work`` itself must be bounded. What it raises is lost if the caller was cancelled.
    """
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # marks it as seen
    raise cancelled
