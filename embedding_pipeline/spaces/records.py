"""What the room keeps and passes on: targets, switches, builds. Frozen values.

Belongs here: the records. Does not belong here: storing them (``history``, ``builds``) or
deciding (``decision``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from embedding_pipeline.records import Space


@dataclass(frozen=True, order=True)
class Target:
    """Vectors to be made or served: a space, at a length, and the model that makes them.

    Attributes:
        model: as settings name it.
        space: the space.
        dimensions: length of the vectors (the view).
    """

    model: str
    space: Space
    dimensions: int

    def __str__(self) -> str:
        if self.dimensions == self.space.native_dimensions:
            return str(self.space)
        return f"{self.space} at {self.dimensions}"


class Action(StrEnum):
    """How a space became the active one, or ceased to be."""

    ADOPT = "adopt"  # the first, or the one that was there before there were records
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    VIEW = "view"  # the same space at another length
    DROP = "drop"


@dataclass(frozen=True)
class Event:
    """One row of the history.

    Attributes:
        number: its place; they only grow.
        at_ms: when, milliseconds since the epoch.
        action: what was done.
        target: to which space.
        by: who asked for it.
        forced: against the gate's word.
        report: the gate's report as a plain tree, or empty.
    """

    number: int
    at_ms: int
    action: Action
    target: Target
    by: str
    forced: bool
    report: Mapping[str, Any]


class BuildState(StrEnum):
    """Where a build is. Each name says what it waits for."""

    PRICING = "pricing"  # a run is to say what it costs
    WAITING = "waiting"  # too dear: a person has to approve it
    BUILDING = "building"  # backfills are made until no day is stale
    REFUSED = "refused"  # complete, and the gate says no
    FAILED = "failed"  # days could not be made, attempt after attempt
    PROMOTED = "promoted"
    CANCELLED = "cancelled"  # the settings ask for something else now


OPEN: Final = (
    BuildState.PRICING,
    BuildState.WAITING,
    BuildState.BUILDING,
    BuildState.REFUSED,
    BuildState.FAILED,
)
"""States of a build whose target is still what the settings ask for."""

UNPRICED: Final = (BuildState.PRICING, BuildState.WAITING)
"""States in which a price is asked for; nothing is spent."""

BOTH: Final = (BuildState.BUILDING, BuildState.REFUSED, BuildState.FAILED)
"""States in which a new day is embedded in the active space and in the build's."""


@dataclass(frozen=True)
class Build:
    """A space that is built beside the active one.

    Attributes:
        number: its number; they only grow.
        key: its name in Dagster (tags, backfill ids): random, so that it is never used
            again, whatever becomes of the store.
        target: what is built.
        state: see ``BuildState``.
        opened_at_ms: when the change was first seen.
        changed_at_ms: when its state last changed.
        cost_nano_usd: what the plan said.
        attempts: backfills launched for it so far.
        approved_by: who allowed its cost, or "".
        note: why it is where it is, for people.
        report: the gate's last report, or empty.
    """

    number: int
    key: str
    target: Target
    state: BuildState
    opened_at_ms: int
    changed_at_ms: int
    cost_nano_usd: int
    attempts: int
    approved_by: str
    note: str
    report: Mapping[str, Any]

    @property
    def backfill_id(self) -> str:
        """Id of the backfill of the latest attempt.

        It follows from the record: a daemon that died between the record and the launch
        makes the same one again, and one that died after it finds it there.
        """
        return f"{self.key}x{self.attempts}"
