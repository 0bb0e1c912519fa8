"""The durable tier as the others see it: asked last, and always right.

Belongs here: reading from the shared store. Does not belong here: writing to it (vectors
are stored in the transaction that books them, see ``service``), or statements (``database``).
"""

import logging
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from embedding_pipeline.cache import database
from embedding_pipeline.cache.tier import Lookup
from embedding_pipeline.records import Digest, Space
from embedding_pipeline.state.store import Store

log = logging.getLogger(__name__)


class DurableTier:
    """Vectors of one space in the shared store.

    Args:
        store: where they are.
        number: the space's number there.
        space: the space.
    """

    name: Final = "database"

    def __init__(self, store: Store, number: int, space: Space) -> None:
        self._store = store
        self._number = number
        self.space = space

    async def get_many(self, digests: Sequence[Digest]) -> Lookup:
        """Look keys up. Damaged entries are removed, so that they are bought again.

        Raises:
            StateError: the store cannot be read. Nothing can be bought then either.
        """
        _, found = await self.confirm((), digests)
        return found

    async def confirm(
        self, held: Sequence[Digest], wanted: Sequence[Digest]
    ) -> tuple[set[Digest], Lookup]:
        """Which of the keys ``held`` by another tier are here too, and what is here of others.

        One transaction. Only what is here was paid for and is in the books.

        Raises:
            StateError: the store cannot be read.
        """
        number, space = self._number, self.space

        def work(connection: Connection) -> tuple[set[Digest], Lookup]:
            there = database.existing(connection, number, held) if held else set()
            return there, database.get_many(connection, number, space, wanted)

        there, found = await self._store.read(work)
        if found.damaged:
            await self._repair(found.damaged)
        return there, found

    async def _repair(self, damaged: Sequence[Digest]) -> None:
        number, space = self._number, self.space
        removed = await self._store.write(
            lambda c: database.forget_damaged(c, number, space, damaged)
        )
        log.warning("%d damaged cache entries removed; bought again", removed)
