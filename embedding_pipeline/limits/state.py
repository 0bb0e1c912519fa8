"""The state of one limit, and its form as JSON.

Belongs here: what all processes share about one account and model. Its size depends on
the processes and projects that are active, never on what was asked for. Does not belong
here: what happens to it (``sharing``).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from embedding_pipeline.limits import buckets
from embedding_pipeline.limits.buckets import Bucket
from embedding_pipeline.limits.protocol import PRIORITIES, Terms

Waiting = tuple[str, int, int, int, int]
"""project, weight, priority, since, tokens"""

Total = tuple[int, int, int, int]
MOST_TOTALS: Final = 256
OTHERS: Final = "…"
"""Projects beyond so many are counted together, so that the state stays small."""


@dataclass(frozen=True)
class Client:
    """A process as the others see it."""

    seen: int
    out: tuple[int, int]
    wants: tuple[Waiting, ...]


@dataclass(frozen=True)
class State:
    """Everything about one limit.

    Attributes:
        at: when it was brought up to date.
        tokens, requests: the buckets.
        blocked_until: nobody sends before, because the provider said so.
        tags: the fair-queueing tag of each project, where it is above the lowest.
        served: when each priority last got a permit, or began to wait for one.
        clients: processes that are alive.
        totals: permits, tokens, ms waited and refusals, by ``project|priority``.
        refusals: refusals for the limits, and for the ramp.
    """

    at: int
    tokens: Bucket
    requests: Bucket
    blocked_until: int = 0
    tags: Mapping[str, int] = field(default_factory=dict)
    served: tuple[int, ...] = (0, 0, 0)
    clients: Mapping[str, Client] = field(default_factory=dict)
    totals: Mapping[str, Total] = field(default_factory=dict)
    refusals: tuple[int, int] = (0, 0)


def fresh(terms: Terms, now: int) -> State:
    """The state before anything happened."""
    tokens = buckets.fresh(
        buckets.MOST_TOKENS, buckets.SAFE_TOKENS, terms.tokens, terms.span, now, terms.ramp
    )
    requests = buckets.fresh(
        buckets.MOST_REQUESTS, buckets.SAFE_REQUESTS, terms.requests, terms.span, now, terms.ramp
    )
    return State(now, tokens, requests, served=(now,) * PRIORITIES)


def to_json(state: State) -> str:
    """The form in which every store keeps it."""
    return json.dumps(asdict(state), separators=(",", ":"))


def from_json(text: str | bytes) -> State:
    """The inverse. Lua writes an empty list like an empty object: both are read."""
    tree: dict[str, Any] = json.loads(text)
    return State(
        at=tree["at"],
        tokens=Bucket(**tree["tokens"]),
        requests=Bucket(**tree["requests"]),
        blocked_until=tree["blocked_until"],
        tags=dict(tree["tags"]),
        served=tuple(tree["served"]),
        clients={name: _client(entry) for name, entry in dict(tree["clients"]).items()},
        totals={name: _total(entry) for name, entry in dict(tree["totals"]).items()},
        refusals=tuple(tree["refusals"]),
    )


def added(
    totals: Mapping[str, Total], project: str, priority: int, amounts: Total
) -> dict[str, Total]:
    """The totals with these amounts added to those of a project and priority."""
    name = f"{project}|{priority}"
    if name not in totals and len(totals) >= MOST_TOTALS:
        name = f"{OTHERS}|{priority}"
    a, b, c, d = totals.get(name, (0, 0, 0, 0))
    return {**totals, name: (a + amounts[0], b + amounts[1], c + amounts[2], d + amounts[3])}


def _total(entry: Sequence[int]) -> Total:
    """Before refusals were counted by project, there were three figures."""
    permits, tokens, waited, refused = [*entry, 0][:4]
    return permits, tokens, waited, refused


def _client(entry: Mapping[str, Any]) -> Client:
    wants = tuple(tuple(want) for want in entry["wants"])
    return Client(entry["seen"], tuple(entry["out"]), wants)
