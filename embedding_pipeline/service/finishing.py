"""Running something to its end, whoever loses patience.

Belongs here: the guards for steps that must not stop half way, because money or other
processes depend on their outcome. Does not belong here: the steps.
"""

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")


PATIENCE_SECONDS: Final = 60.0
"""How long what is out may take to come in when it is over."""


async def let_in(tasks: Collection[asyncio.Task[None]], seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for what ends by itself, so long at most; not at all where the caller is cancelled."""
    here = asyncio.current_task()
    if tasks and not (here is not None and here.cancelling()):
        await asyncio.wait(tasks, timeout=seconds)


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
