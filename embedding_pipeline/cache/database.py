"""The durable tier: vectors in the shared store. What is here was paid for and is safe.

Belongs here: statements on ``vectors`` and ``spaces``, to be run inside the caller's
transaction. Does not belong here: transactions, or deciding what to fetch.
"""

import uuid
from collections.abc import Mapping, Sequence
from itertools import repeat

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, insert, select, update

from embedding_pipeline.cache import apart, groups
from embedding_pipeline.cache.codec import PREFIX, decode_into, is_reference, size_of
from embedding_pipeline.cache.tier import Lookup
from embedding_pipeline.records import Digest, Space, Vectors
from embedding_pipeline.state.beside import beside
from embedding_pipeline.state.schema import spaces, vectors
from embedding_pipeline.state.schema import store_identity as identity
from embedding_pipeline.state.statements import (
    SKIP,
    blobs,
    delete_by_digest,
    insert_many,
    read_values,
    select_by_digest,
)


def find_space(connection: Connection, space: Space) -> int | None:
    """The number of a space in this store; None where nobody has used it yet."""
    found = connection.scalar(select(spaces.c.id).where(spaces.c.name == str(space)))
    return None if found is None else int(found)


def space_id(connection: Connection, space: Space) -> int:
    """The number of a space in this store; made on first use. Needs a writing transaction."""
    found = find_space(connection, space)
    if found is not None:
        return found
    made = connection.execute(insert(spaces).values(name=str(space)))
    assert made.inserted_primary_key is not None
    return int(made.inserted_primary_key[0])


def store_identity(connection: Connection) -> str:
    """What sets this store apart from others, and from itself before a purge: 32 hex digits."""
    return str(connection.scalar(select(identity.c.id)))


def renew_identity(connection: Connection) -> None:
    """Make what other tiers hold for this store unreachable: it is not what it was."""
    connection.execute(update(identity).values(id=uuid.uuid4().hex))


def get_many(
    connection: Connection, number: int, space: Space, digests: Sequence[Digest]
) -> Lookup:
    """Look ``digests`` up; repeated ones are answered at every position. Raises StateError."""
    shape = len(digests), space.native_dimensions
    out: Vectors | None = None  # made when something is there; mostly nothing is
    found = np.zeros(len(digests), np.bool_)
    places = dict(zip(digests, range(len(digests)), strict=True))
    damaged: list[Digest] = []
    payers: set[int] = set()
    columns = ("digest", "value", "entry_id")
    for rows in read_values(connection, vectors, columns, number, list(places)):
        if not rows:
            continue
        entries: list[apart.Entry] = [(row[0], row[1], row[2]) for row in rows]
        payers.update(entry for _, _, entry in entries)
        if out is None:
            out = np.zeros(shape, np.float32)
        targets = np.array([places[digest] for digest, _, _ in entries], np.intp)
        bad = _read_into(connection, out, targets, space, entries)
        found[targets] = True
        found[targets[bad]] = False
        damaged += (Digest(entries[position][0]) for position in bad)
    if out is None:
        return Lookup(found, np.broadcast_to(np.float32(0), shape))
    if len(places) < len(digests):
        _repeat(digests, places, out, found)
    return Lookup(found, out, tuple(damaged), frozenset(payers))


def _read_into(
    connection: Connection,
    out: Vectors,
    targets: npt.NDArray[np.intp],
    space: Space,
    entries: Sequence[apart.Entry],
) -> list[int]:
    """Decode entries, and read those that lie in files; returns which are damaged."""
    bad: list[int] = []
    files = beside(connection)
    away = [files is not None and is_reference(value) for _, value, _ in entries]
    here = [position for position, other in enumerate(away) if not other]
    if here:
        digests, values, _ = zip(*(entries[position] for position in here), strict=True)
        damaged = decode_into(out, targets[here], space, digests, values)
        bad += (here[position] for position in damaged)
    there = [position for position, other in enumerate(away) if other]
    if there and files is not None:
        rows = [entries[position] for position in there]
        lost = apart.read_into(out, targets[there], files, space, rows)
        bad += (there[position] for position in lost)
    return bad


def _repeat(
    digests: Sequence[Digest],
    places: Mapping[Digest, int],
    out: Vectors,
    found: npt.NDArray[np.bool_],
) -> None:
    """Answer keys asked for several times at every position, not at their last one alone."""
    firsts = np.array([places[digest] for digest in digests], np.intp)
    others = np.flatnonzero(firsts != np.arange(len(digests)))
    out[others], found[others] = out[firsts[others]], found[firsts[others]]


def existing(connection: Connection, number: int, digests: Sequence[Digest]) -> set[Digest]:
    """Which of the keys have an entry, without reading it."""
    return {
        Digest(bytes(digest))
        for (digest,) in select_by_digest(connection, vectors, ("digest",), number, digests)
    }


def keys_after(connection: Connection, number: int, last: Digest, count: int) -> list[Digest]:
    """The next keys of a space in the order of their digests."""
    c = vectors.c
    query = select(c.digest).where(c.space_id == number, c.digest > last)
    rows = connection.execute(query.order_by(c.digest).limit(count))
    return [Digest(bytes(digest)) for (digest,) in rows]


def paid_by(connection: Connection, number: int, digests: Sequence[Digest]) -> dict[Digest, int]:
    """The ledger entry that paid for each key that has a vector."""
    return {
        Digest(bytes(digest)): int(entry)
        for digest, entry in select_by_digest(
            connection, vectors, ("digest", "entry_id"), number, digests
        )
    }


def put_many(
    connection: Connection,
    number: int,
    space: Space,
    digests: Sequence[Digest],
    rows: Vectors,
    entry_ids: Sequence[int],
    *,
    dtype: str,
    now_ms: int = 0,
) -> int:
    """Store vectors; ``rows[i]`` is the one of ``digests[i]``, paid by ``entry_ids[i]``.

    The caller holds the claims. Should somebody have been quicker all the same (a lease that
    ran out during a long pause), the first stored vector stays.

    Returns:
        How many were stored.

    Raises:
        StateError: the disk does not take them.
    """
    values = apart.entries_for(connection, space, digests, rows, entry_ids, dtype)
    keys = blobs(connection, digests)
    entries = zip(repeat(number), keys, values, entry_ids, strict=False)
    done = insert_many(connection, vectors, entries, conflict=SKIP)
    if done == len(values):
        one_each = dict(zip(entry_ids, values, strict=True))
        sizes = {entry: size_of(value[:PREFIX], len(value)) for entry, value in one_each.items()}
        groups.add(connection, number, entry_ids, sizes, now_ms)
    else:
        groups.recount(connection, entry_ids, now_ms)
    return done


def forget(connection: Connection, number: int, digests: Sequence[Digest]) -> None:
    """Remove entries, damaged ones for example."""
    payers = paid_by(connection, number, digests).values()
    delete_by_digest(connection, vectors, number, digests)
    groups.recount(connection, payers)


def forget_damaged(
    connection: Connection, number: int, space: Space, digests: Sequence[Digest]
) -> int:
    """Remove those of the entries that do not decode; returns how many.

    Looked at again in this transaction: what somebody repaired meanwhile stays.
    """
    damaged = get_many(connection, number, space, digests).damaged
    forget(connection, number, damaged)
    return len(damaged)
