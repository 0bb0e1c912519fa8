"""Who goes next: weights, priorities, and nobody out of turn. Pure.

Belongs here: the order of those who wait for one limit. Does not belong here: the rest of
the state (``sharing``), stores, time.

Order among those who wait: urgent before normal before bulk, except that a priority that
waited ``AGEING_MS`` without a permit goes first once. Within a priority, start-time fair
queueing: each project has a tag, which a permit moves by its cost over the project's
weight; the lowest goes first. A project that was away has no claim to what it did not
use: shares are max-min, and idle ones are lent. The cost of a permit is the time in which
the scarcer of the two resources makes up for it.

Nobody is served out of turn: what those ahead want is set aside before a permit is given,
even if they come for it a little later. One that does not come for ``WANTS_MS`` (it was
killed, or stands still) is no longer waited for. A part of the bucket, ``reserve`` ms
worth, is for urgent work alone, so that it need not wait behind a large request.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from embedding_pipeline.limits import buckets
from embedding_pipeline.limits.buckets import Bucket
from embedding_pipeline.limits.protocol import URGENT, Terms
from embedding_pipeline.limits.state import State, added

AGEING_MS: Final = 10_000
WANTS_MS: Final = 5_000
MICROS: Final = buckets.UNIT * 1000
"""A cost times this, over a rate, is the time in µs in which the rate makes up for it."""

LONGEST_US: Final = 10**10


@dataclass(order=True, slots=True)
class Place:
    """A want in line; the order is the order in which those of one flow go."""

    since: int
    client: str
    index: int
    project: str = field(compare=False)
    weight: int = field(compare=False)
    priority: int = field(compare=False)
    tokens: int = field(compare=False)


class Line:
    """Those who wait, as seen by one process in one step.

    What those ahead will take is set aside in a second set of books (``_lead``), by
    which everybody behind them is judged; only what is given is real.
    """

    def __init__(self, state: State, terms: Terms, now: int) -> None:
        self._terms, self._now = terms, now
        self._flows: dict[tuple[int, str], list[Place]] = {}
        for place in sorted(_places(state, now), reverse=True):
            self._flows.setdefault((place.priority, place.project), []).append(place)
        self._projects = {project for _, project in self._flows}
        present = {priority for priority, _ in self._flows}
        self.tokens, self.requests = state.tokens, state.requests
        self.tags = dict(state.tags)
        self.served = [at if p in present else now for p, at in enumerate(state.served)]
        self.totals = dict(state.totals)
        self._lead = _Lead(state.tokens, state.requests, dict(state.tags), list(self.served))
        self._low = 0

    def next(self) -> tuple[Place, int]:
        """Take the head of the line; also its rank, -1 for a priority that waited too long."""
        chosen = min(self._flows, key=self._rank)
        rank = self._rank(chosen)[0]
        place = self._flows[chosen].pop()
        if not self._flows[chosen]:
            del self._flows[chosen]
        return place, rank

    def wait(self, place: Place, rank: int) -> int:
        """Ms until the place may go, those ahead of it having gone."""
        floor = 0 if rank <= URGENT else self._terms.reserve
        span = self._terms.span
        tokens = buckets.decide(self._lead.tokens, place.tokens, floor, span)
        requests = buckets.decide(self._lead.requests, 1, floor, span)
        return max(tokens.retry_after, requests.retry_after)

    def set_aside(self, place: Place) -> None:
        """The place goes before us, now or later."""
        self._lead.move(place, self._now)

    def give(self, place: Place) -> None:
        """The place goes now."""
        self._lead.move(place, self._now)
        self.tokens = buckets.take(self.tokens, place.tokens)
        self.requests = buckets.take(self.requests, 1)
        lowest = min(self.tags.get(project, 0) for project in self._projects)
        self._low = max(self._low, lowest)
        start = max(self._low, self.tags.get(place.project, 0))
        self.tags[place.project] = start + _charge(self.tokens, self.requests, place)
        self.served[place.priority] = self._now
        self._count(place)

    def rebased(self) -> dict[str, int]:
        """The tags above the lowest, counted from it."""
        return {name: tag - self._low for name, tag in self.tags.items() if tag > self._low}

    def _rank(self, flow: tuple[int, str]) -> tuple[int, int, int, int, str, int]:
        priority, project = flow
        head = self._flows[flow][-1]
        since = self._lead.served[priority]
        rank, order = priority, 0
        if priority != URGENT and self._now - since >= AGEING_MS:
            rank, order = -1, since
        tag = self._lead.tags.get(project, 0)
        return rank, order, tag, head.since, head.client, head.index

    def _count(self, place: Place) -> None:
        amounts = (1, place.tokens, self._now - place.since, 0)
        self.totals = added(self.totals, place.project, place.priority, amounts)


@dataclass
class _Lead:
    """Buckets, tags and ages as they will be when those ahead have gone."""

    tokens: Bucket
    requests: Bucket
    tags: dict[str, int]
    served: list[int]

    def move(self, place: Place, now: int) -> None:
        self.tokens = buckets.take(self.tokens, place.tokens)
        self.requests = buckets.take(self.requests, 1)
        tag = self.tags.get(place.project, 0)
        self.tags[place.project] = tag + _charge(self.tokens, self.requests, place)
        self.served[place.priority] = now


def _charge(tokens: Bucket, requests: Bucket, place: Place) -> int:
    """µs in which the scarcer resource makes up for a permit, over the project's weight."""
    spent = max(place.tokens * MICROS // tokens.rate, MICROS // requests.rate)
    return min(spent, LONGEST_US) * 1000 // place.weight


def _places(state: State, now: int) -> Sequence[Place]:
    return [
        Place(since, name, index, project, weight, priority, tokens)
        for name, client in state.clients.items()
        if now - client.seen < WANTS_MS
        for index, (project, weight, priority, since, tokens) in enumerate(client.wants)
    ]
