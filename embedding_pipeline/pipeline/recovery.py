"""Which days with deferred chunks can be run again now.

Belongs here: the decision. Pure. Does not belong here: asking the store or the provider,
or launching.

A chunk was deferred because its cost was more than a budget had left; spending only grows.
So there is room for it only once the period has turned or the limit was raised. Or it was
deferred because no provider delivered; then one must have answered since. So a day that is
launched always gets further: nothing is launched in vain, again and again.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from embedding_pipeline.ledger.affording import Ask, Room, afford
from embedding_pipeline.ledger.deferred import BATCH_API, BUDGET, OUTAGE, Backlog
from embedding_pipeline.records import Priority

ATTEMPTS = 3
"""Runs for the same deferred chunks that may end before they get to them."""


@dataclass(frozen=True)
class Relaunch:
    """One day to be run again.

    Attributes:
        partition: the day.
        pass_id: which deferral it is for: the same one is not launched twice at a time.
        attempt: how many runs for it have been launched before.
    """

    partition: str
    pass_id: str
    attempt: int = 0

    @property
    def key(self) -> str:
        """Names the launch: one key, one run."""
        return f"{self.partition}|{self.pass_id}|{self.attempt}"


@dataclass(frozen=True)
class Recovery:
    """What to launch now, and why the rest has to wait, by day.

    Attributes:
        launches: days to be run.
        waiting: why, by day.
        forgotten: chunks that nobody waits for: their space is not written any more.
    """

    launches: Sequence[Relaunch] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)
    forgotten: int = 0


def recover(
    waiting: Sequence[Backlog],
    rooms: Sequence[Room],
    price: int,
    *,
    busy: Collection[str] = (),
    tried: Mapping[str, int] | None = None,
    passed: Collection[str] = (),
    most: int = 10,
) -> Recovery:
    """Decide on every day that has deferred chunks: urgent ones first, then oldest first.

    Args:
        waiting: what is deferred, of the spaces that a run would write.
        rooms: what the budgets leave.
        price: nano-USD a token.
        busy: days a run is under way or queued for.
        tried: by ``pass_id``, how many runs have been launched for it.
        passed: reasons other than the budget that hold no more.
        most: days to launch at a time.
    """
    left, launches, why = list(rooms), list[Relaunch](), dict[str, str]()
    for day, groups in _by_day(waiting).items():
        pass_id = max(groups, key=lambda one: one.at).pass_id
        attempt = (tried or {}).get(pass_id, 0)
        possible = [one for one in groups if one.reason in passed or _fits(one, left, price)]
        if day in busy:
            why[day] = "a run is under way"
        elif not possible:
            why[day] = _why_not({one.reason for one in groups})
        elif attempt >= ATTEMPTS:
            why[day] = f"{attempt} runs have ended without getting to it; run it by hand"
        elif len(launches) >= most:
            why[day] = "others come first"
        else:
            launches.append(Relaunch(day, pass_id, attempt))
            for one in possible:
                left = _less(left, one, price)
    return Recovery(launches, why)


def wants_probe(waiting: Sequence[Backlog], busy: Collection[str]) -> bool:
    """Whether it matters now if a provider answers. Pure."""
    return any(one.reason == OUTAGE and one.account.partition not in busy for one in waiting)


def _why_not(reasons: Collection[str]) -> str:
    whys = {
        BATCH_API: "its texts are in a batch (batch_api_sensor goes on)",
        BUDGET: "there is no room in the budget yet",
        OUTAGE: "the provider is out still",
    }
    return " and ".join(whys.get(reason, reason) for reason in sorted(reasons))


def _by_day(waiting: Sequence[Backlog]) -> dict[str, list[Backlog]]:
    order = list(Priority)
    days: dict[str, list[Backlog]] = {}
    for one in sorted(waiting, key=lambda one: (order.index(one.priority), one.account.partition)):
        days.setdefault(one.account.partition, []).append(one)
    return days


def _fits(one: Backlog, rooms: Sequence[Room], price: int) -> bool:
    """Whether there is room for at least its smallest chunk."""
    ask = Ask(one.account.project, one.account.user, one.least_tokens * price)
    return one.reason == BUDGET and bool(afford([ask], rooms).fits)


def _less(rooms: Sequence[Room], one: Backlog, price: int) -> list[Room]:
    """The rooms once a day has taken what it can."""
    cost = one.tokens * price
    return [
        Room(room.scope, max(0, room.free_nano - cost), max(0, room.unspent_nano - cost))
        if room.concerns(one.account.project, one.account.user)
        else room
        for room in rooms
    ]
