"""Reading and changing the shared store from a command, without making one on the way.

Belongs here: opening it, if it is there. Does not belong here: any question asked of it.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from embedding_pipeline.settings.tree import Settings
    from embedding_pipeline.state.store import Store

T = TypeVar("T")


def ask(settings: "Settings", work: "Callable[[Connection], T]") -> T | None:
    """The answer of one reading transaction; None where there is no store yet."""
    return _transact(settings, work, write=False)


def change(settings: "Settings", work: "Callable[[Connection], T]") -> T | None:
    """The result of one writing transaction; None where there is no store yet."""
    return _transact(settings, work, write=True)


def attend(settings: "Settings", work: "Callable[[Store], Coroutine[Any, Any, T]]") -> T | None:
    """The result of several transactions; None where there is no store yet."""
    from embedding_pipeline.assembly.parts import has_state, open_store

    if not has_state(settings):
        return None
    with open_store(settings) as store:
        return asyncio.run(work(store))


def _transact(settings: "Settings", work: "Callable[[Connection], T]", *, write: bool) -> T | None:
    async def once(store: "Store") -> T:
        return await (store.write(work) if write else store.read(work))

    return attend(settings, once)
