"""What the durable tier holds, by ledger entry: how much, and when it was last used.

Belongs here: statements on ``cache_groups``, to be run inside the caller's transaction,
and what one process remembers of the groups it read. Does not belong here: deciding
which group goes (``eviction``).

A group is what one request brought for one account. Reading any vector of it marks all
of it, at most once an hour and together with writes that happen anyway: reads stay reads.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, select, update

from embedding_pipeline.cache.codec import PREFIX, size_of
from embedding_pipeline.state.schema import cache_groups, spaces, vectors
from embedding_pipeline.state.statements import BATCH, insert_many

HOUR_MS: Final = 3_600_000
"""How exactly the time of the last use is known."""

_ADD_UP: Final = """("entry_id") DO UPDATE SET
    "entries" = "cache_groups"."entries" + excluded."entries",
    "bytes" = "cache_groups"."bytes" + excluded."bytes",
    "used_at" = excluded."used_at" """

MOST_REMEMBERED: Final = 100_000
"""Groups a process remembers to have marked; more are marked again, or not at all."""


@dataclass(frozen=True)
class SpaceUse:
    """What is held of one space.

    Attributes:
        space: its name.
        space_id: its number in the store.
        entries: vectors.
        bytes: of their stored values.
        used_at: when any of them was last used, to the hour.
    """

    space: str
    space_id: int
    entries: int
    bytes: int
    used_at: int


def add(
    connection: Connection,
    space_id: int,
    entry_ids: Iterable[int],
    sizes: Mapping[int, int],
    now_ms: int,
) -> None:
    """Count new vectors: ``entry_ids`` name each one's payer, ``sizes`` the bytes of a payer's."""
    counts, hour = Counter(entry_ids), _hour(now_ms)
    rows = [(entry, space_id, n, n * sizes[entry], hour) for entry, n in counts.items()]
    insert_many(connection, cache_groups, rows, conflict=_ADD_UP)


def recount(connection: Connection, entry_ids: Iterable[int], now_ms: int = 0) -> None:
    """Count these groups anew, after some of their vectors went or were never added."""
    wanted = sorted(set(entry_ids))
    for start in range(0, len(wanted), BATCH):
        part = wanted[start : start + BATCH]
        found = _counted(connection, part)
        known = select(cache_groups.c.entry_id, cache_groups.c.used_at).where(
            cache_groups.c.entry_id.in_(part)
        )
        used = {int(entry): int(at) for entry, at in connection.execute(known)}
        connection.execute(delete(cache_groups).where(cache_groups.c.entry_id.in_(part)))
        rows = [(*map(int, row), used.get(int(row[0]), _hour(now_ms))) for row in found]
        if rows:
            connection.execute(
                cache_groups.insert(),
                [dict(zip(cache_groups.c.keys(), row, strict=True)) for row in rows],
            )


def _counted(connection: Connection, entry_ids: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """What there is of each of these: entry, space, vectors and their bytes."""
    c = vectors.c
    length, prefix = func.length(c.value), func.substr(c.value, 1, PREFIX)
    query = (
        select(c.entry_id, c.space_id, length, prefix, func.count())
        .where(c.entry_id.in_(entry_ids))
        .group_by(c.entry_id, c.space_id, length, prefix)
    )
    held: dict[tuple[int, int], tuple[int, int]] = {}
    for entry, space, size, begin, count in connection.execute(query):
        entries, total = held.get((entry, space), (0, 0))
        held[entry, space] = entries + count, total + count * size_of(bytes(begin), size)
    return [(*key, *counts) for key, counts in held.items()]


def mark_used(connection: Connection, entry_ids: Sequence[int], now_ms: int) -> None:
    """Note that some of these groups' vectors were read."""
    c, hour = cache_groups.c, _hour(now_ms)
    for start in range(0, len(entry_ids), BATCH):
        part = entry_ids[start : start + BATCH]
        connection.execute(
            update(cache_groups).where(c.entry_id.in_(part), c.used_at < hour).values(used_at=hour)
        )


def total_bytes(connection: Connection) -> int:
    """Bytes of all stored values."""
    return int(connection.scalar(select(func.sum(cache_groups.c.bytes))) or 0)


def by_space(connection: Connection) -> list[SpaceUse]:
    """What is held of each space, by name; spaces of which nothing is held are left out."""
    c = cache_groups.c
    query = (
        select(
            spaces.c.name,
            c.space_id,
            func.sum(c.entries),
            func.sum(c.bytes),
            func.max(c.used_at),
        )
        .join(spaces, spaces.c.id == c.space_id)
        .group_by(spaces.c.name, c.space_id)
        .order_by(spaces.c.name)
    )
    return [SpaceUse(row[0], *map(int, row[1:])) for row in connection.execute(query)]


class Uses:
    """The groups one process read, until that is written down. Safe in threads."""

    def __init__(self) -> None:
        self._hour = 0
        self._marked: set[int] = set()
        self._pending: set[int] = set()
        self._lock = threading.Lock()

    def note(self, entry_ids: Iterable[int]) -> None:
        """Some vectors of these groups were read."""
        with self._lock:
            if len(self._pending) <= MOST_REMEMBERED:
                self._pending |= set(entry_ids) - self._marked

    def take(self, now_ms: int) -> list[int]:
        """What is to be written down now; it counts as written until the hour ends."""
        with self._lock:
            if _hour(now_ms) != self._hour or len(self._marked) > MOST_REMEMBERED:
                self._hour, self._marked = _hour(now_ms), set()
            pending, self._pending = sorted(self._pending), set()
            self._marked.update(pending)
        return pending


def _hour(now_ms: int) -> int:
    return now_ms - now_ms % HOUR_MS
