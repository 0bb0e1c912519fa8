"""Looking after the durable tier as a whole: evicting, giving room back, verifying.

Belongs here: loops of short transactions over the shared store, which may be in use by any
number of processes meanwhile. Does not belong here: the steps themselves (``eviction``,
``database``), or when they are taken.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from sqlalchemy import Connection, delete

from embedding_pipeline.cache import apart, database
from embedding_pipeline.cache.eviction import Policy, evict_step
from embedding_pipeline.cache.tier import Lookup
from embedding_pipeline.records import Digest, Space
from embedding_pipeline.state import room
from embedding_pipeline.state.schema import names
from embedding_pipeline.state.store import Store

NORM_TOLERANCE: Final = 1e-3
"""How far from 1 the norm of a stored vector may be; float16 costs less than half of it."""

AT_ONCE: Final = 1000
"""Entries read in one transaction."""

EXAMPLES: Final = 10


@dataclass(frozen=True)
class Evicted:
    """What an eviction did.

    Attributes:
        entries: vectors removed.
        bytes: of their values.
        surplus: bytes still above the size asked for; what is left may not go.
        returned_bytes: given back to the file system.
    """

    entries: int
    bytes: int
    surplus: int
    returned_bytes: int


async def evict(
    store: Store, policy: Policy, on_step: Callable[[int], None] = lambda _: None
) -> Evicted:
    """Evict as the policy says, and give back the room that became free.

    Args:
        store: the shared store.
        policy: what may go, and how far.
        on_step: told how many vectors went so far, now and then.

    Raises:
        StateError: the store refused; what went before is gone.
    """
    entries = size = 0
    while True:
        step = await store.write(lambda c: evict_step(c, policy))
        entries, size = entries + step.entries, size + step.bytes
        on_step(entries)
        if step.done:
            return Evicted(entries, size, max(step.surplus, 0), await give_room_back(store))


async def purge(
    store: Store, number: int, on_step: Callable[[int], None] = lambda _: None
) -> Evicted:
    """Remove every vector of a space, and the names given to them. The ledger stays.

    What other tiers hold is not served any more, whatever is stored under its keys later.
    """
    done = await evict(store, Policy(only=number), on_step)

    def work(connection: Connection) -> None:
        connection.execute(delete(names).where(names.c.space_id == number))
        database.renew_identity(connection)

    await store.write(work)
    return done


async def give_room_back(store: Store) -> int:
    """Remove files nobody needs, cut what is free off the database's own; returns the bytes."""
    before = await store.read(room.measure)
    await sweep(store)
    while await store.write(room.give_back):
        pass
    return before.total_bytes - (await store.read(room.measure)).total_bytes


async def sweep(store: Store) -> None:
    """Remove the files beside the store that no vector refers to.

    What is committed decides, and is looked at once more in the transaction that removes.

    Raises:
        StateError: they cannot be removed.
    """
    files = store.beside
    if files is None:
        return
    for shelf in await store.read(lambda _: files.shelves()):
        if await store.read(lambda c: apart.unused(c, shelf)):  # noqa: B023
            await store.write(lambda c: apart.remove_unused(c, shelf))  # noqa: B023


@dataclass
class Verified:
    """What reading every entry of a space found.

    Attributes:
        entries: read.
        damaged: not as they were written.
        not_unit: whole, but not finite or not of length 1.
        removed: of both, taken out, so that they are bought again when needed.
        examples: the first few bad keys, as content hashes.
    """

    entries: int = 0
    damaged: int = 0
    not_unit: int = 0
    removed: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        """Entries that are not what they should be."""
        return self.damaged + self.not_unit


async def verify(
    store: Store,
    space: Space,
    number: int,
    *,
    repair: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Read every entry of a space: checksum, dimensions, finite, norm.

    Args:
        store: the shared store.
        space: the space.
        number: its number in the store.
        repair: remove what is bad.
        on_progress: told how many were read so far.

    Raises:
        StateError: the store cannot be read, or refused a removal.
    """
    result = Verified()
    async for digests in _keys(store, number):
        found = await store.read(lambda c, d=digests: database.get_many(c, number, space, d))  # type: ignore[misc]
        crooked = not_unit(digests, found)
        bad = [*found.damaged, *crooked]
        result.entries += int(found.found.sum()) + len(found.damaged)
        result.damaged += len(found.damaged)
        result.not_unit += len(crooked)
        result.examples += [digest.hex() for digest in bad[: EXAMPLES - len(result.examples)]]
        if repair and bad:
            result.removed += await store.write(
                lambda c, b=bad: remove_bad(c, number, space, b)  # type: ignore[misc]
            )
        on_progress(result.entries)
    return result


def not_unit(digests: Sequence[Digest], found: Lookup) -> list[Digest]:
    """Keys whose vector is not finite or not of length 1. Pure."""
    with np.errstate(all="ignore"):  # an overflow is a finding, not a warning
        norms = np.sqrt(np.einsum("ij,ij->i", found.vectors, found.vectors))
    wrong = found.found & ~(np.abs(norms - 1) <= NORM_TOLERANCE)
    return [digests[row] for row in np.flatnonzero(wrong).tolist()]


def remove_bad(connection: Connection, number: int, space: Space, digests: Sequence[Digest]) -> int:
    """Remove those of the entries that are bad in this transaction; returns how many."""
    found = database.get_many(connection, number, space, digests)
    crooked = not_unit(digests, found)
    database.forget(connection, number, [*found.damaged, *crooked])
    if crooked:
        database.renew_identity(connection)  # other tiers hold them too, and see nothing wrong
    return len(found.damaged) + len(crooked)


async def _keys(store: Store, number: int) -> AsyncIterator[list[Digest]]:
    """All keys of a space in order, some at a time; what is stored meanwhile may be left out."""
    last = Digest(b"")
    while True:
        after = last
        digests = await store.read(lambda c: database.keys_after(c, number, after, AT_ONCE))  # noqa: B023
        if not digests:
            return
        yield digests
        last = digests[-1]
