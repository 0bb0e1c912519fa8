"""The durable tier as the others see it: asked last, and always right.

Belongs here: reading from the shared store. Does not belong here: writing to it (vectors
are stored in the transaction that books them, see ``service``), or statements (``database``).
"""

import logging
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection

from embedding_pipeline.cache import database
from embedding_pipeline.cache.groups import Uses
from embedding_pipeline.cache.tier import Lookup
from embedding_pipeline.records import Digest, Space
from embedding_pipeline.state.store import Store

log = logging.getLogger(__name__)

FEW: Final = 64
"""So many keys, an online call's worth, are looked up with who paid for them."""


class DurableTier:
    """Vectors of one space in the shared store.

    Args:
        store: where they are.
        number: the space's number there.
        space: the space.
        uses: told which entries' vectors were read.
        identity: the store's, as the other tiers know it; "" where that does not matter.
    """

    name: Final = "database"

    def __init__(
        self,
        store: Store,
        number: int,
        space: Space,
        uses: Uses | None = None,
        *,
        identity: str = "",
    ) -> None:
        self._store = store
        self._uses = uses or Uses()
        self._number = number
        self._identity = identity
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
    ) -> tuple[set[Digest] | None, Lookup]:
        """Which of the keys ``held`` by another tier are here too, and what is here of others.

        One transaction. Only what is here was paid for and is in the books. None instead of
        the keys when a purge has made another store of this one: what others hold for the
        old one says nothing any more.

        Raises:
            StateError: the store cannot be read.
        """
        number, space = self._number, self.space

        def work(connection: Connection) -> tuple[set[Digest] | None, Lookup]:
            there = self._present(connection, held)
            return there, database.get_many(connection, number, space, wanted)

        there, found = await self._store.read(work)
        self._uses.note(found.entries)
        if found.damaged:
            await self._repair(found.damaged)
        return there, found

    def _present(self, connection: Connection, held: Sequence[Digest]) -> set[Digest] | None:
        """Which of these are here; of a few it is noted that they are used.

        Of many that would be as dear as reading them, and bulk reads them here anyway when
        they have left the other tier.
        """
        if not held:
            return set()
        if self._identity and database.store_identity(connection) != self._identity:
            return None
        if len(held) > FEW:
            return database.existing(connection, self._number, held)
        paid = database.paid_by(connection, self._number, held)
        self._uses.note(paid.values())
        return set(paid)

    async def _repair(self, damaged: Sequence[Digest]) -> None:
        number, space = self._number, self.space
        removed = await self._store.write(
            lambda c: database.forget_damaged(c, number, space, damaged)
        )
        if removed:  # not when somebody evicted or repaired them meanwhile
            log.warning("%d damaged cache entries removed; bought again", removed)
