"""Chunks left for later: named, with the reason, until a run embeds them.

Belongs here: statements on ``deferred``. Never a text: ids, hashes and counts.
"""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, select

from embedding_pipeline.ledger.named import named_in
from embedding_pipeline.records import Account, Digest, Priority, Space
from embedding_pipeline.state.schema import deferred, spaces
from embedding_pipeline.state.statements import BATCH, upsert_into

BUDGET: Final = "budget"
OUTAGE: Final = "outage"
BATCH_API: Final = "batch_api"


@dataclass(frozen=True)
class Deferred:
    """One chunk that has no vector yet.

    Attributes:
        account: who pays for it, and its partition.
        chunk_id: its id.
        digest: the hash of its text.
        priority: the lane of the run that left it.
        reason: ``budget``, ``outage`` or ``batch_api``.
        tokens: by the higher of both counts.
    """

    account: Account
    chunk_id: str
    digest: Digest
    priority: Priority
    reason: str
    tokens: int


@dataclass(frozen=True)
class Backlog:
    """What is deferred for one payer and reason in one partition.

    Attributes:
        space: the space that lacks the vectors.
        account: project, user and partition.
        reason: ``budget``, ``outage`` or ``batch_api``.
        priority: the most urgent lane among them.
        chunks: how many.
        tokens: their tokens, by the higher of both counts.
        least_tokens: those of the smallest.
        pass_id: who wrote the latest of them.
        at: when, in milliseconds.
    """

    space: str
    account: Account
    reason: str
    priority: Priority
    chunks: int
    tokens: int
    least_tokens: int
    pass_id: str
    at: int


def new_pass() -> str:
    """A name no other pass over a partition has."""
    return uuid.uuid4().hex


def put_off(
    connection: Connection, space_id: int, chunks: Iterable[Deferred], pass_id: str, now_ms: int
) -> None:
    """Write chunks down as deferred by one pass over their partition."""
    rows = [
        {
            "space_id": space_id,
            "partition": chunk.account.partition,
            "chunk_id": chunk.chunk_id,
            "digest": chunk.digest,
            "project": chunk.account.project,
            "user": chunk.account.user,
            "priority": chunk.priority.value,
            "reason": chunk.reason,
            "tokens": chunk.tokens,
            "at": now_ms,
            "pass_id": pass_id,
        }
        for chunk in chunks
    ]
    if not rows:
        return
    new = upsert_into(connection, deferred)
    changed = [name for name in rows[0] if name not in ("space_id", "partition", "chunk_id")]
    connection.execute(
        new.on_conflict_do_update(
            index_elements=["space_id", "partition", "chunk_id"],
            set_={name: new.excluded[name] for name in changed},
        ),
        rows,
    )


def close_passes(connection: Connection, space_id: int, passes: Mapping[str, str]) -> int:
    """Forget what earlier passes over some partitions deferred and these did not.

    ``passes`` are the last ones, by partition. Returns how many chunks were forgotten.
    """
    c, removed = deferred.c, 0
    partitions = list(passes)
    for start in range(0, len(partitions), BATCH):
        mine = partitions[start : start + BATCH]
        last = [passes[partition] for partition in mine]
        done = connection.execute(
            delete(deferred).where(
                c.space_id == space_id, c.partition.in_(mine), c.pass_id.not_in(last)
            )
        )
        removed += done.rowcount
    return removed


def forget_others(connection: Connection, kept: Collection[str]) -> int:
    """Forget what is deferred in spaces other than these; returns how many chunks."""
    others = select(spaces.c.id).where(spaces.c.name.not_in(sorted(kept)))
    done = connection.execute(delete(deferred).where(deferred.c.space_id.in_(others)))
    return done.rowcount


def chunk_ids(connection: Connection, space_id: int, partition: str) -> frozenset[str]:
    """The chunks of a partition that are deferred."""
    return chunk_ids_of(connection, space_id, [partition])[partition]


def chunk_ids_of(
    connection: Connection, space_id: int, partitions: Sequence[str]
) -> dict[str, frozenset[str]]:
    """The chunks of some partitions that are deferred, by partition; asked for together."""
    return named_in(connection, deferred, space_id, partitions)


def count(connection: Connection, space: Space) -> int:
    """How many chunks lack a vector of a space."""
    c = deferred.c
    query = (
        select(func.count())
        .select_from(deferred)
        .join(spaces, spaces.c.id == c.space_id)
        .where(spaces.c.name == str(space))
    )
    return int(connection.scalar(query) or 0)


def backlogs(connection: Connection, space_id: int | None = None) -> list[Backlog]:
    """What is deferred, by partition, payer and reason; oldest partition first."""
    c = deferred.c
    groups = (spaces.c.name, c.partition, c.project, c.user, c.reason)
    query = (
        select(
            *groups,
            func.count(),
            func.sum(c.tokens),
            func.min(c.tokens),
            func.max(c.pass_id),
            func.max(c.at),
        )
        .join(spaces, spaces.c.id == c.space_id)
        .group_by(*groups)
        .order_by(c.partition, c.project, c.user, c.reason)
    )
    if space_id is not None:
        query = query.where(c.space_id == space_id)
    lanes = _lanes(connection)
    return [
        Backlog(
            row[0],
            Account(row[2], row[3], row[1]),
            row[4],
            lanes.get((row[0], row[1]), Priority.NORMAL),
            int(row[5]),
            int(row[6]),
            int(row[7]),
            row[8],
            int(row[9]),
        )
        for row in connection.execute(query)
    ]


def _lanes(connection: Connection) -> dict[tuple[str, str], Priority]:
    """The most urgent priority of each space and partition."""
    c = deferred.c
    query = select(spaces.c.name, c.partition, c.priority).join(spaces, spaces.c.id == c.space_id)
    order: Sequence[Priority] = list(Priority)
    found: dict[tuple[str, str], Priority] = {}
    for space, partition, name in connection.execute(query.distinct()):
        lane = Priority(name)
        best = found.get((space, partition), lane)
        found[space, partition] = min(best, lane, key=order.index)
    return found
