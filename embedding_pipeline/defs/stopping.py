"""Ending a run on request without leaving its books open.

Belongs here: turning "terminate" in the UI, Ctrl-C and SIGTERM into a cancellation of
the work, so that requests in flight are settled and files are left whole. Does not
belong here: what the work does when it is cancelled.
"""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import dagster as dg

T = TypeVar("T")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def until_stopped(work: Awaitable[T]) -> T:
    """Await ``work``; when the run is told to end, cancel it and wait until it has ended.

    Dagster's own handler raises wherever the main thread happens to be, which in a
    running loop is seldom inside the work. A second request to end is left to it.

    Raises DagsterExecutionInterruptedError when the run was told to end.
    """
    task = asyncio.ensure_future(work)
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        task.cancel()

    with _on_first_signal(stop):
        try:
            return await task
        except asyncio.CancelledError:
            if stopped.is_set():
                raise dg.DagsterExecutionInterruptedError from None
            task.cancel()
            raise


@contextmanager
def _on_first_signal(stop: Callable[[], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            if loop.remove_signal_handler(number):
                signal.signal(number, handler)

    def received() -> None:
        restore()
        stop()

    try:
        for number in _SIGNALS:
            loop.add_signal_handler(number, received)
    except NotImplementedError:  # no signals in this kind of loop (Windows)
        pass
    try:
        yield
    finally:
        restore()
