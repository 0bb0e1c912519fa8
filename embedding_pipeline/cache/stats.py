"""How often each tier had what it was asked for, by day, space and project.

Belongs here: counting in memory, and statements on ``cache_stats``, to be run inside the
caller's transaction. Does not belong here: deciding when to write (``service``), or how
much a tier holds.

Counts are kept in the process and added to the store with transactions that happen anyway;
a killed process loses those of its last seconds, and nothing else.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, func, select

from embedding_pipeline.state.schema import cache_stats, spaces
from embedding_pipeline.state.statements import insert_many

DAY_MS: Final = 86_400_000

_ADD: Final = '("day", "space_id", "project", "tier") DO UPDATE SET ' + ", ".join(
    f'"{name}" = "cache_stats"."{name}" + excluded."{name}"'
    for name in ("hits", "misses", "damaged")
)
"""On conflict; SQLAlchemy would compile the statement anew each time."""


@dataclass(frozen=True)
class Asked:
    """Keys of one project that a tier was asked for: those it had, and those it had not.

    ``damaged`` ones are among the misses.
    """

    hits: int = 0
    misses: int = 0
    damaged: int = 0

    def __add__(self, other: "Asked") -> "Asked":
        return Asked(
            self.hits + other.hits, self.misses + other.misses, self.damaged + other.damaged
        )


Counts = Mapping[tuple[str, str], Asked]
"""By project and tier."""


@dataclass(frozen=True)
class TierUse:
    """What a tier was asked for in one space, by one project."""

    space: str
    project: str
    tier: str
    hits: int
    misses: int
    damaged: int

    @property
    def hit_ratio(self) -> float:
        """Share of the keys asked for that were there; 0 where nothing was asked."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class Tally:
    """The counts of one process since they were last written. For one event loop."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], Asked] = {}

    def count(
        self,
        tier: str,
        projects: Sequence[str],
        found: npt.NDArray[np.bool_],
        damaged: int = 0,
    ) -> None:
        """Take note of one lookup.

        Args:
            tier: who was asked.
            projects: for each key the project it is for.
            found: for each key whether the tier had it, shape ``(len(projects),)``.
            damaged: how many of those not found were damaged; the first project's.
        """
        asked = Counter(projects)
        hits = (
            asked if found.all() else Counter(projects[i] for i in np.flatnonzero(found).tolist())
        )
        for project, keys in asked.items():
            self.add(tier, project, Asked(hits[project], keys - hits[project], damaged))
            damaged = 0

    def add(self, tier: str, project: str, asked: Asked) -> None:
        """Take note of keys of one project."""
        key = (project, tier)
        self._counts[key] = self._counts.get(key, Asked()) + asked

    def take(self) -> Counts:
        """What was counted, to be written now; counting starts anew."""
        taken, self._counts = self._counts, {}
        return taken

    def give_back(self, counts: Counts) -> None:
        """What could not be written."""
        for (project, tier), asked in counts.items():
            self.add(tier, project, asked)


def add(connection: Connection, space_id: int, counts: Counts, now_ms: int) -> None:
    """Add counts to those of the day (UTC) of ``now_ms``."""
    rows = [
        (now_ms // DAY_MS, space_id, project, tier, asked.hits, asked.misses, asked.damaged)
        for (project, tier), asked in sorted(counts.items())
    ]
    insert_many(connection, cache_stats, rows, conflict=_ADD)


def usage(connection: Connection, *, since_ms: int | None = None) -> list[TierUse]:
    """What the tiers were asked for, by space, project and tier.

    Args:
        connection: a reading transaction.
        since_ms: only days (UTC) that had not ended at this instant.
    """
    c = cache_stats.c
    groups = (spaces.c.name, c.project, c.tier)
    sums = [func.sum(column) for column in (c.hits, c.misses, c.damaged)]
    query = select(*groups, *sums).join(spaces, spaces.c.id == c.space_id)
    if since_ms is not None:
        query = query.where(c.day >= since_ms // DAY_MS)
    rows = connection.execute(query.group_by(*groups).order_by(*groups))
    return [
        TierUse(space, project, tier, *map(int, counts)) for space, project, tier, *counts in rows
    ]
