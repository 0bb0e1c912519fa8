"""Single flight: who is fetching which key, over all processes.

Belongs here: statements on ``claims``, to be run inside the caller's transaction. A
claim belongs to a flight; when the flight is gone, so is the claim.
"""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, delete, exists, select

from embedding_pipeline.cache.database import BATCH
from embedding_pipeline.records import Digest
from embedding_pipeline.state.schema import claims, flights
from embedding_pipeline.state.statements import insert_many

_HELD: Final = select(claims.c.digest).where(
    claims.c.space_id == bindparam("space"),
    claims.c.digest.in_(bindparam("digests", expanding=True)),
)


def held(connection: Connection, space: int, digests: Sequence[Digest]) -> set[Digest]:
    """Which keys somebody is fetching."""
    return {
        Digest(bytes(digest))
        for start in range(0, len(digests), BATCH)
        for (digest,) in connection.execute(
            _HELD, {"space": space, "digests": digests[start : start + BATCH]}
        )
    }


def claim(connection: Connection, space: int, digests: Sequence[Digest], flight: str) -> None:
    """Take keys for a flight. The caller has seen, in this transaction, that they are free."""
    insert_many(connection, claims, [(space, digest, flight) for digest in digests])


def release(connection: Connection, space: int, digests: Sequence[Digest]) -> None:
    """Give keys back."""
    for start in range(0, len(digests), BATCH):
        connection.execute(
            delete(claims).where(
                claims.c.space_id == space,
                claims.c.digest.in_(digests[start : start + BATCH]),
            )
        )


def release_orphans(connection: Connection) -> int:
    """Give back every key whose flight is gone; returns how many."""
    gone = ~exists().where(flights.c.id == claims.c.flight_id)
    return int(connection.execute(delete(claims).where(gone)).rowcount)
