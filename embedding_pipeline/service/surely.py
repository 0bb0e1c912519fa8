"""A write that must not be lost because the server of the store went away within it.

Belongs here: making it once more when it is not known whether it was kept, and how a settlement
tells. Does not belong here: what is written, or waiting for a server that is away (``state.store``
does).
"""

from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection

from embedding_pipeline.cache import claims, database
from embedding_pipeline.errors import StateInterrupted
from embedding_pipeline.records import Digest
from embedding_pipeline.state.store import Store

ATTEMPTS: Final = 4
"""Times that a server may leave one write."""


async def write_surely(
    store: Store, work: Callable[[Connection], None], kept: Callable[[Connection], bool]
) -> None:
    """Write; where the server leaves it within, look whether it was kept, and write anew if not.

    Args:
        store: where to.
        work: the transaction.
        kept: whether it is there already.

    Raises:
        StateError: the store refused, or the server left it ``ATTEMPTS`` times.
    """

    def again(connection: Connection) -> None:
        if not kept(connection):
            work(connection)

    attempt = work
    for _ in range(ATTEMPTS - 1):
        try:
            await store.write(attempt)
        except StateInterrupted:
            attempt = again
        else:
            return
    await store.write(attempt)


def is_settled(
    connection: Connection, *, flight: str, space: int, digests: Sequence[Digest]
) -> bool:
    """Whether a flight's answer is stored: the transaction that does it gives the claims back."""
    if flight in claims.holders(connection, space, digests).values():
        return False
    return database.existing(connection, space, digests) >= set(digests)
