"""What of some work the budgets allow: now, once others have settled, or not at all.

Belongs here: the decision. Pure. Does not belong here: where money stands (``budgets``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ask:
    """One text somebody wants to pay for.

    Attributes:
        project: the tenant that pays.
        user: a person or service within the project, or "".
        nano_usd: most it can be billed.
    """

    project: str
    user: str
    nano_usd: int


@dataclass(frozen=True)
class Room:
    """What one budget leaves.

    Attributes:
        scope: ``all``, ``project:…`` or ``user:…``.
        free_nano: neither spent nor reserved.
        unspent_nano: not spent: what is free if everything reserved comes back.
    """

    scope: str
    free_nano: int
    unspent_nano: int

    def concerns(self, project: str, user: str) -> bool:
        """Whether the budget counts what this project and user spend."""
        return covers(self.scope, project, user)


@dataclass(frozen=True)
class Verdict:
    """What becomes of each ask, by its position.

    Attributes:
        fits: to be paid for now; together they are within every budget.
        waits: there is no room while others have money reserved, but there may be soon.
        never: more than is left of a budget, even if everything reserved comes back; the
            position of the first such budget.
    """

    fits: Sequence[int]
    waits: Sequence[int] = ()
    never: dict[int, int] = field(default_factory=dict)


def covers(scope: str, project: str, user: str) -> bool:
    """Whether what this project and user spend counts for a scope."""
    kind, _, name = scope.partition(":")
    return kind == "all" or (name == user if kind == "user" else name == project)


def afford(asks: Sequence[Ask], rooms: Sequence[Room]) -> Verdict:
    """Take the asks in order, as many as every budget that concerns them has room for.

    One that is too large is passed over, so that smaller ones behind it use the room.
    """
    free = [room.free_nano for room in rooms]
    concerned = _concerned(asks, rooms)
    fits: list[int] = []
    waits: list[int] = []
    never: dict[int, int] = {}
    for position, ask in enumerate(asks):
        cost, mine = ask.nano_usd, concerned[ask.project, ask.user]
        if all(cost <= free[index] for index in mine):
            fits.append(position)
            for index in mine:
                free[index] -= cost
            continue
        spent = next((index for index in mine if cost > rooms[index].unspent_nano), None)
        if spent is None:
            waits.append(position)
        else:
            never[position] = spent
    return Verdict(fits, waits, never)


def _concerned(
    asks: Sequence[Ask], rooms: Sequence[Room]
) -> dict[tuple[str, str], tuple[int, ...]]:
    """For each project and user the positions of the budgets that concern them."""
    return {
        payer: tuple(i for i, room in enumerate(rooms) if room.concerns(*payer))
        for payer in {(ask.project, ask.user) for ask in asks}
    }
