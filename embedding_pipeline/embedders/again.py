"""What has to happen before a call that may have been billed is made once more.

Belongs here: the hook, carried past the wrappers that need not know. Does not belong here:
what it does (the service books the call that was lost, and asks for money for the next).
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeAlias

from embedding_pipeline.records import Attempt

BeforeAgain: TypeAlias = Callable[[Attempt], Awaitable[None]]
"""Told of the attempt that may have been billed. Raises where there shall be no other."""


async def _nothing(_: Attempt) -> None:
    """Nobody asked to be told."""


_HOOK: Final[ContextVar[BeforeAgain]] = ContextVar("before_again", default=_nothing)


@contextmanager
def before_again(hook: BeforeAgain) -> Iterator[None]:
    """``hook`` is told of calls that are made inside."""
    token = _HOOK.set(hook)
    try:
        yield
    finally:
        _HOOK.reset(token)


async def about_to_repeat(lost: Attempt) -> None:
    """Say that a call is made again. Raises what the hook raises."""
    if lost.maybe_billed:
        await _HOOK.get()(lost)
