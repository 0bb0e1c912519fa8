"""Single flight: who is fetching which key, over all processes.

Belongs here: statements on ``claims``, to be run inside the caller's transaction. A
claim belongs to a flight; when the flight is gone, so is the claim.
"""

from collections.abc import Sequence
from itertools import repeat

from sqlalchemy import Connection, delete, exists

from embedding_pipeline.records import Digest
from embedding_pipeline.state.schema import claims, flights
from embedding_pipeline.state.statements import (
    SKIP,
    blobs,
    delete_by_digest,
    insert_many,
    select_by_digest,
)


def held(connection: Connection, space: int, digests: Sequence[Digest]) -> set[Digest]:
    """Which keys somebody is fetching."""
    return set(holders(connection, space, digests))


def holders(connection: Connection, space: int, digests: Sequence[Digest]) -> dict[Digest, str]:
    """The keys somebody is fetching, each with the flight that does."""
    rows = select_by_digest(connection, claims, ("digest", "flight_id"), space, digests)
    return {Digest(bytes(digest)): flight for digest, flight in rows}


def claim(connection: Connection, space: int, digests: Sequence[Digest], flight: str) -> None:
    """Take keys for a flight. The caller has seen, in this transaction, that they are free."""
    keys = blobs(connection, digests)
    insert_many(connection, claims, zip(repeat(space), keys, repeat(flight), strict=False))


def take(connection: Connection, space: int, digests: Sequence[Digest], flight: str) -> bool:
    """Take keys for a flight that has none, if all are free; else False, and none is taken.

    As they nearly always are free, nobody looks first: that would cost as much as taking them.
    """
    keys = blobs(connection, digests)
    rows = zip(repeat(space), keys, repeat(flight), strict=False)
    if insert_many(connection, claims, rows, conflict=SKIP) == len(digests):
        return True
    release(connection, space, digests, flight)
    return False


def release(connection: Connection, space: int, digests: Sequence[Digest], flight: str) -> None:
    """Give a flight's keys back. What another one has claimed since stays claimed."""
    delete_by_digest(connection, claims, space, digests, flight_id=flight)


def release_orphans(connection: Connection) -> int:
    """Give back every key whose flight is gone; returns how many."""
    gone = ~exists().where(flights.c.id == claims.c.flight_id)
    return int(connection.execute(delete(claims).where(gone)).rowcount)
