"""Questions to the ledger.

Belongs here: sums over entries. Does not belong here: writing entries (``flights``).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, case, func, select

from embedding_pipeline.ledger.flights import UNKNOWN
from embedding_pipeline.records import Account, Kind
from embedding_pipeline.state.schema import ledger, spaces
from embedding_pipeline.state.statements import BATCH


@dataclass(frozen=True)
class LedgerSum:
    """Entries summed over one combination of account, space and kind.

    ``unpriced_tokens`` were booked without a price: what they cost is not in the sum.
    """

    account: Account
    space: str
    kind: Kind
    requests: int
    tokens: int
    cost_nano_usd: int
    unknown_nano_usd: int
    wait_ms: int
    unpriced_tokens: int


def sums(
    connection: Connection,
    *,
    partition: str | None = None,
    partitions: Sequence[str] | None = None,
    run_id: str | None = None,
    start_ms: int | None = None,
    end_ms: int | None = None,
) -> list[LedgerSum]:
    """Sum the ledger by partition, project, user, space and kind, in that order.

    Args:
        connection: a reading transaction.
        partition: only entries of this partition.
        partitions: only entries of these.
        run_id: only entries of this run.
        start_ms: only entries at or after this instant.
        end_ms: only entries before this instant.
    """
    c = ledger.c
    groups = (c.partition, c.project, c.user, spaces.c.name, c.kind)
    query = (
        select(
            *groups,
            func.sum(c.requests),
            func.sum(c.tokens),
            func.sum(c.cost_nano_usd),
            func.sum(case((c.outcome == UNKNOWN, c.cost_nano_usd), else_=0)),
            func.sum(c.wait_ms),
            func.sum(case((c.price_nano_usd.is_(None), c.tokens), else_=0)),
        )
        .join(spaces, spaces.c.id == c.space_id)
        .group_by(*groups)
        .order_by(*groups)
    )
    wanted = (
        (partition, c.partition == partition),
        (partitions, c.partition.in_(partitions or ())),
        (run_id, c.run_id == run_id),
        (start_ms, c.at >= (start_ms or 0)),
        (end_ms, c.at < (end_ms or 0)),
    )
    for value, condition in wanted:
        if value is not None:
            query = query.where(condition)
    return [
        LedgerSum(Account(row[1], row[2], row[0]), row[3], Kind(row[4]), *map(int, row[5:]))
        for row in connection.execute(query)
    ]


@dataclass(frozen=True)
class Total:
    """Everything that was ever booked under one space, project, provider and kind."""

    space: str
    project: str
    provider: str
    kind: str
    requests: int
    tokens: int
    cost_nano_usd: int
    unknown_nano_usd: int
    wait_ms: int


def totals(connection: Connection) -> list[Total]:
    """The whole ledger summed, whatever the day, run and user."""
    c = ledger.c
    groups = (spaces.c.name, c.project, c.provider, c.kind)
    figures = [func.sum(column) for column in (c.requests, c.tokens, c.cost_nano_usd)]
    unknown = func.sum(case((c.outcome == UNKNOWN, c.cost_nano_usd), else_=0))
    rows = connection.execute(
        select(*groups, *figures, unknown, func.sum(c.wait_ms))
        .join(spaces, spaces.c.id == c.space_id)
        .group_by(*groups)
        .order_by(*groups)
    )
    return [Total(*row[:4], *map(int, row[4:])) for row in rows]


@dataclass(frozen=True)
class Entry:
    """The part of a ledger entry that says where a vector came from."""

    account: Account
    kind: Kind


def entries(connection: Connection, numbers: Sequence[int]) -> dict[int, Entry]:
    """The entries with these numbers."""
    found: dict[int, Entry] = {}
    c = ledger.c
    for start in range(0, len(numbers), BATCH):
        rows = connection.execute(
            select(c.id, c.project, c.user, c.partition, c.kind).where(
                c.id.in_(numbers[start : start + BATCH])
            )
        )
        for number, project, user, partition, kind in rows:
            found[int(number)] = Entry(Account(project, user, partition), Kind(kind))
    return found


@dataclass(frozen=True)
class Balance:
    """Whether every entry is what its tokens cost at the price it names."""

    entries: int
    unbalanced: int


def balance(connection: Connection, partition: str | None = None) -> Balance:
    """Check ``cost = tokens × price`` entry by entry (a missing price costs 0)."""
    c = ledger.c
    wrong = c.cost_nano_usd != c.tokens * func.coalesce(c.price_nano_usd, 0)
    query = select(func.count(), func.coalesce(func.sum(case((wrong, 1), else_=0)), 0))
    if partition is not None:
        query = query.where(c.partition == partition)
    total, unbalanced = connection.execute(query.select_from(ledger)).one()
    return Balance(int(total), int(unbalanced))


def balances(connection: Connection, partitions: Sequence[str]) -> dict[str, Balance]:
    """Check ``cost = tokens × price`` entry by entry (a missing price costs 0), by partition."""
    c, found = ledger.c, dict[str, Balance]()
    wrong = c.cost_nano_usd != c.tokens * func.coalesce(c.price_nano_usd, 0)
    query = select(c.partition, func.count(), func.sum(case((wrong, 1), else_=0)))
    for start in range(0, len(partitions), BATCH):
        mine = query.where(c.partition.in_(partitions[start : start + BATCH]))
        for partition, total, unbalanced in connection.execute(mine.group_by(c.partition)):
            found[partition] = Balance(int(total), int(unbalanced))
    return {partition: found.get(partition, Balance(0, 0)) for partition in partitions}


def sums_of(connection: Connection, partitions: Sequence[str]) -> dict[str, list[LedgerSum]]:
    """``sums`` of each of some partitions, asked for together."""
    found: dict[str, list[LedgerSum]] = {partition: [] for partition in partitions}
    for start in range(0, len(partitions), BATCH):
        for entry in sums(connection, partitions=partitions[start : start + BATCH]):
            found[entry.account.partition].append(entry)
    return found
