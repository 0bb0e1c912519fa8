"""Which groups of vectors leave the durable tier, and their leaving, step by step.

Belongs here: the choice (pure) and one bounded step of it inside the caller's writing
transaction. Does not belong here: when it happens, or giving room back (``state.room``).

The least recently used group goes first, the oldest of those that are equal. A step is
small, so that writers of other processes wait for milliseconds; two that evict at once
take turns, and each sees what the other left.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, select

from embedding_pipeline.cache.groups import total_bytes
from embedding_pipeline.state.schema import cache_groups, vectors

STEP_BYTES: Final = 32 << 20
"""Most bytes of values in one step (one group may exceed it)."""

_CANDIDATES: Final = 512


@dataclass(frozen=True)
class Group:
    """Vectors that were bought together."""

    entry_id: int
    entries: int
    bytes: int


@dataclass(frozen=True)
class Policy:
    """What may go, and how far.

    Attributes:
        max_bytes: the size to come down to; 0 lets everything go that may.
        keep: numbers of spaces of which nothing goes.
        only: the one space to take from; None means any.
        before_ms: only groups last used before this instant; None means any.
    """

    max_bytes: int = 0
    keep: Collection[int] = ()
    only: int | None = None
    before_ms: int | None = None


@dataclass(frozen=True)
class Step:
    """What one step did.

    Attributes:
        entries: vectors removed.
        bytes: of their values.
        surplus: bytes still above the policy's size.
        exhausted: nothing is left that may go.
    """

    entries: int
    bytes: int
    surplus: int
    exhausted: bool

    @property
    def done(self) -> bool:
        """Another step would change nothing."""
        return self.exhausted or self.surplus <= 0


def choose(candidates: Iterable[Group], surplus: int, step_bytes: int = STEP_BYTES) -> list[Group]:
    """The groups of one step, in the order of ``candidates``: no more than needed. Pure."""
    chosen: list[Group] = []
    wanted, taken = min(surplus, step_bytes), 0
    for group in candidates:
        if taken >= wanted:
            break
        chosen.append(group)
        taken += group.bytes
    return chosen


def evict_step(connection: Connection, policy: Policy, step_bytes: int = STEP_BYTES) -> Step:
    """Remove one step's worth of vectors. Needs a writing transaction."""
    surplus = total_bytes(connection) - policy.max_bytes
    if surplus <= 0:
        return Step(0, 0, 0, exhausted=False)
    chosen = choose(_candidates(connection, policy), surplus, step_bytes)
    entries = _remove(connection, [group.entry_id for group in chosen])
    gone = sum(group.bytes for group in chosen)
    return Step(entries, gone, surplus - gone, exhausted=not chosen)


def _candidates(connection: Connection, policy: Policy) -> list[Group]:
    c = cache_groups.c
    query = select(c.entry_id, c.entries, c.bytes).order_by(c.used_at, c.entry_id)
    if policy.keep:
        query = query.where(c.space_id.not_in(list(policy.keep)))
    if policy.only is not None:
        query = query.where(c.space_id == policy.only)
    if policy.before_ms is not None:
        query = query.where(c.used_at < policy.before_ms)
    return [Group(*map(int, row)) for row in connection.execute(query.limit(_CANDIDATES))]


def _remove(connection: Connection, entry_ids: Sequence[int]) -> int:
    if not entry_ids:
        return 0
    gone = connection.execute(delete(vectors).where(vectors.c.entry_id.in_(entry_ids)))
    connection.execute(delete(cache_groups).where(cache_groups.c.entry_id.in_(entry_ids)))
    return int(gone.rowcount)
