"""Chunks a provider refuses: named, with the reason, until somebody redrives them.

Belongs here: statements on ``quarantine`` and which reasons may pass by themselves.
Never a text: ids, hashes, reasons and codes.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, delete, func, select, update

from embedding_pipeline.ledger.named import named_in
from embedding_pipeline.records import Account, Digest
from embedding_pipeline.state.schema import quarantine, spaces
from embedding_pipeline.state.statements import BATCH, upsert_into

REFUSED: Final = "refused_by_provider"
BAD_REPLY: Final = "invalid_reply"

LASTING: Final = frozenset({REFUSED})
"""Reasons that the same text meets again: not tried again unless redriven. All other
reasons are judged anew in every run, before any call where the policy decides."""


@dataclass(frozen=True)
class Held:
    """One chunk in quarantine."""

    space: str
    account: Account
    chunk_id: str
    digest: Digest
    reason: str
    code: str = ""
    attempts: int = 1
    first_ms: int = 0
    last_ms: int = 0


def hold(connection: Connection, space_id: int, chunks: Iterable[Held], now_ms: int) -> None:
    """Put chunks in quarantine; for those that are there, add the attempts and the news."""
    rows = [
        {
            "space_id": space_id,
            "partition": chunk.account.partition,
            "chunk_id": chunk.chunk_id,
            "digest": chunk.digest,
            "project": chunk.account.project,
            "reason": chunk.reason,
            "code": chunk.code,
            "attempts": chunk.attempts,
            "first_at": now_ms,
            "last_at": now_ms,
            "redrive": 0,
        }
        for chunk in chunks
    ]
    if not rows:
        return
    new = upsert_into(connection, quarantine)
    again = new.on_conflict_do_update(
        index_elements=["space_id", "partition", "chunk_id"],
        set_={
            "digest": new.excluded.digest,
            "project": new.excluded.project,
            "reason": new.excluded.reason,
            "code": new.excluded.code,
            "attempts": quarantine.c.attempts + new.excluded.attempts,
            "last_at": now_ms,
            "redrive": 0,
        },
    )
    connection.execute(again, rows)


def lasting(connection: Connection, space_id: int, digests: Sequence[Digest]) -> dict[Digest, str]:
    """Keys not to be tried again, with their reason. One redriven chunk frees its key."""
    c = quarantine.c
    found: dict[Digest, str] = {}
    some = select(c.chunk_id).where(c.space_id == space_id, c.reason.in_(LASTING)).limit(1)
    if connection.scalar(some) is None:
        return found  # as good as always; asking for each key costs as much as looking it up
    for start in range(0, len(digests), BATCH):
        query = (
            select(c.digest, func.min(c.reason))
            .where(
                c.space_id == space_id,
                c.digest.in_(digests[start : start + BATCH]),
                c.reason.in_(LASTING),
            )
            .group_by(c.digest)
            .having(func.max(c.redrive) == 0)
        )
        found |= {Digest(bytes(d)): reason for d, reason in connection.execute(query)}
    return found


def chunk_ids(connection: Connection, space_id: int, partition: str) -> frozenset[str]:
    """The chunks of a partition that are in quarantine."""
    return chunk_ids_of(connection, space_id, [partition])[partition]


def chunk_ids_of(
    connection: Connection, space_id: int, partitions: Sequence[str]
) -> dict[str, frozenset[str]]:
    """The chunks of some partitions that are in quarantine, by partition; asked for together."""
    return named_in(connection, quarantine, space_id, partitions)


def reset_partitions(connection: Connection, space_id: int, keep: Mapping[str, Set[str]]) -> int:
    """Forget chunks of some partitions that were embedded after all; those in ``keep`` stay.

    Returns how many were forgotten.
    """
    c, removed = quarantine.c, 0
    for partition, held in chunk_ids_of(connection, space_id, list(keep)).items():
        mine = and_(c.space_id == space_id, c.partition == partition)
        gone = sorted(held - keep[partition])
        for start in range(0, len(gone), BATCH):
            part = gone[start : start + BATCH]
            connection.execute(delete(quarantine).where(mine, c.chunk_id.in_(part)))
        removed += len(gone)
    return removed


def listing(connection: Connection, partition: str | None = None) -> list[Held]:
    """What is in quarantine, oldest partition first."""
    c = quarantine.c
    query = (
        select(quarantine, spaces.c.name)
        .join(spaces, spaces.c.id == c.space_id)
        .order_by(c.partition, c.chunk_id)
    )
    if partition is not None:
        query = query.where(c.partition == partition)
    return [
        Held(
            row.name,
            Account(row.project, "", row.partition),
            row.chunk_id,
            Digest(bytes(row.digest)),
            row.reason,
            row.code,
            row.attempts,
            row.first_at,
            row.last_at,
        )
        for row in connection.execute(query)
    ]


def redrive(
    connection: Connection, *, chunk_ids: Sequence[str] = (), partition: str | None = None
) -> list[str]:
    """Ask for another try of chunks (all, when none is named); returns their partitions."""
    c = quarantine.c
    here = () if partition is None else (c.partition == partition,)
    parts = [chunk_ids[i : i + BATCH] for i in range(0, len(chunk_ids), BATCH)]
    found: set[str] = set()
    for wanted in [(c.chunk_id.in_(part), *here) for part in parts] or [here]:
        found.update(connection.scalars(select(c.partition).where(*wanted).distinct()))
        connection.execute(update(quarantine).where(*wanted).values(redrive=1))
    return sorted(found)
