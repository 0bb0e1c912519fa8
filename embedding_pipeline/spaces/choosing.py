"""Which spaces a run writes, and which one a reader gets. Pure.

Belongs here: the rules. Does not belong here: asking the store or the disk.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from embedding_pipeline.spaces.records import BOTH, Build, BuildState, Target


@dataclass(frozen=True)
class Writing:
    """What a run writes.

    Attributes:
        targets: in this order. The last one is the one the run is judged by and shown with.
        optional: those whose failure is no failure of the run: the way back.
        superseded: the run belongs to a build that is over; it must not spend anything.
    """

    targets: tuple[Target, ...]
    optional: frozenset[Target] = frozenset()
    superseded: bool = False

    @property
    def main(self) -> Target:
        """The target the run is shown with."""
        return self.targets[-1]


def first_active(wanted: Target, days: Mapping[Target, int]) -> Target:
    """The active target where there is no record yet.

    The settings' own when it has vectors or nothing has; else the space with the most
    days: the settings were changed before this version first ran.

    Args:
        wanted: what the settings ask for.
        days: how many days each target on disk has.
    """
    if any(target.space == wanted.space for target in days) or not days:
        return wanted
    return max(days, key=lambda target: (days[target], target))


def writing(
    wanted: Target,
    active: Target,
    build: Build | None,
    *,
    back: Target | None = None,
    tagged: str | None = None,
) -> Writing:
    """What a run is to write.

    A run of a build writes that build's space alone. Any other keeps the active space
    complete, and with it the space that is being built, or that the settings ask for
    without anybody watching over them. A build that waits for approval costs nothing.
    The active space comes last: a day that readers see in it is in the other as well.

    Args:
        wanted: what the settings ask for.
        active: what readers get.
        build: the open build, if there is one; of a tagged run, its own.
        back: what a rollback would go to; it is kept complete as well.
        tagged: key of the build the run was launched for, if it was.
    """
    if tagged is not None:
        if build is None or build.state not in (BuildState.BUILDING, BuildState.PROMOTED):
            return Writing((), superseded=True)
        return Writing((build.target,))
    main = wanted if wanted.space == active.space else active
    beside = _beside(wanted, active, build)
    taken = {main.space, *(target.space for target in beside)}
    optional = (back,) if back is not None and back.space not in taken else ()
    return Writing((*beside, *optional, main), frozenset(optional))


def _beside(wanted: Target, active: Target, build: Build | None) -> tuple[Target, ...]:
    """The space that is to be the next one."""
    if wanted.space == active.space:
        return ()
    if build is None:
        return (wanted,)
    if build.target.space == active.space:  # the settings have just changed; it will end
        return ()
    return (build.target,) if build.state in BOTH else ()


def served(wanted: Target, active: Target) -> Target:
    """What readers get: the active target, at a smaller view if the settings ask for one."""
    if wanted.space == active.space and wanted.dimensions < active.dimensions:
        return wanted
    return active
