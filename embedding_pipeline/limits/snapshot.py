"""The limits as they stand, for people and for Prometheus.

Belongs here: reading states as figures, and one text format. Does not belong here:
printing, serving, or changing anything.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from embedding_pipeline.exposition import Metric, render
from embedding_pipeline.limits.buckets import UNIT, Bucket
from embedding_pipeline.limits.callers import RANKS
from embedding_pipeline.limits.state import State

_PRIORITIES: Final = {rank: str(priority) for priority, rank in RANKS.items()}


@dataclass(frozen=True)
class Resource:
    """One bucket.

    Attributes:
        name: ``tokens`` or ``requests``.
        per_minute: what is given out at present.
        ceiling: the limit, None where none is known.
        available: what is in the bucket; negative while a large request is paid off.
    """

    name: str
    per_minute: int
    ceiling: int | None
    available: float


@dataclass(frozen=True)
class Use:
    """What one project got at one priority, since the state began."""

    project: str
    priority: str
    permits: int
    tokens: int
    waited_seconds: float
    refused: int
    waiting: int


@dataclass(frozen=True)
class Snapshot:
    """One limit.

    Attributes:
        key: account and model.
        at_ms: when it was last brought up to date.
        resources: tokens and requests.
        uses: by project and priority.
        processes: that take part.
        refused: 429s so far; ramp: how often the provider asked to slow down.
        blocked_ms: for how long nobody sends, from ``at_ms``.
    """

    key: str
    at_ms: int
    resources: tuple[Resource, ...]
    uses: tuple[Use, ...]
    processes: int
    refused: int
    ramp: int
    blocked_ms: int


def between(before: Snapshot | None, after: Snapshot) -> Snapshot:
    """The state ``after``, with what was counted since ``before``; uses of nothing are left out."""
    if before is None:
        return after
    known = {(use.project, use.priority): use for use in before.uses}
    uses = (_less(use, known.get((use.project, use.priority))) for use in after.uses)
    return replace(
        after,
        uses=tuple(use for use in uses if use.permits or use.refused or use.waiting),
        refused=_grown(before.refused, after.refused),
        ramp=_grown(before.ramp, after.ramp),
    )


def _grown(before: int, after: int) -> int:
    """What a counter counted; all of it where the state was begun anew."""
    return after - before if after >= before else after


def _less(use: Use, before: Use | None) -> Use:
    if before is None or before.permits > use.permits:  # begun anew
        return use
    return replace(
        use,
        permits=use.permits - before.permits,
        tokens=use.tokens - before.tokens,
        waited_seconds=round(use.waited_seconds - before.waited_seconds, 3),
        refused=use.refused - before.refused,
    )


def snapshots(states: Mapping[str, State]) -> list[Snapshot]:
    """Every limit, by key."""
    return [_snapshot(key, state) for key, state in sorted(states.items())]


def _snapshot(key: str, state: State) -> Snapshot:
    return Snapshot(
        key,
        state.at,
        (_resource("tokens", state.tokens), _resource("requests", state.requests)),
        tuple(_uses(state)),
        len(state.clients),
        *state.refusals,
        max(state.blocked_until - state.at, 0),
    )


def _resource(name: str, bucket: Bucket) -> Resource:
    ceiling = bucket.ceiling if bucket.known else None
    return Resource(name, bucket.rate, ceiling, round(bucket.level / UNIT, 3))


def _uses(state: State) -> Iterator[Use]:
    waiting: dict[tuple[str, int], int] = {}
    for client in state.clients.values():
        for project, _, priority, _, _ in client.wants:
            waiting[project, priority] = waiting.get((project, priority), 0) + 1
    flows = {(name.rpartition("|")[0], int(name.rpartition("|")[2])) for name in state.totals}
    for project, priority in sorted(flows | set(waiting)):
        total = state.totals.get(f"{project}|{priority}", (0, 0, 0, 0))
        permits, tokens, waited, refused = total
        here = waiting.get((project, priority), 0)
        yield Use(project, _PRIORITIES[priority], permits, tokens, waited / 1000, refused, here)


def prometheus(found: Sequence[Snapshot]) -> str:
    """The limits alone in the Prometheus text format."""
    return render(metrics(found))


def metrics(found: Sequence[Snapshot]) -> list[Metric]:
    """The limits as figures."""
    return [
        Metric(
            f"limit_{name}",
            kind,
            text,
            [
                ({"key": snapshot.key, **labels}, value)
                for snapshot in found
                for labels, value in _samples(snapshot).get(name, [])
            ],
        )
        for name, kind, text in _METRICS
    ]


_METRICS: Final[tuple[tuple[str, Literal["counter", "gauge"], str], ...]] = (
    ("rate_per_minute", "gauge", "What is given out a minute at present."),
    ("ceiling_per_minute", "gauge", "The limit a minute, where one is known."),
    ("available", "gauge", "What is in the bucket."),
    ("processes", "gauge", "Processes that take part."),
    ("refusals_total", "counter", "429 answers by kind."),
    ("permits_total", "counter", "Requests that got a permit."),
    ("permit_tokens_total", "counter", "Tokens of those requests, by the estimate bytes / 4."),
    ("wait_seconds_total", "counter", "Time requests waited for a permit."),
    ("refused_requests_total", "counter", "429s met."),
    ("waiting", "gauge", "Requests at the head of a line."),
)


def _samples(snapshot: Snapshot) -> dict[str, list[tuple[dict[str, str], float]]]:
    values: dict[str, list[tuple[dict[str, str], float]]] = {
        "processes": [({}, snapshot.processes)],
        "refusals_total": [({"kind": "rate"}, snapshot.refused), ({"kind": "ramp"}, snapshot.ramp)],
    }
    for resource in snapshot.resources:
        labels = {"resource": resource.name}
        values.setdefault("rate_per_minute", []).append((labels, resource.per_minute))
        values.setdefault("available", []).append((labels, resource.available))
        if resource.ceiling is not None:
            values.setdefault("ceiling_per_minute", []).append((labels, resource.ceiling))
    for use in snapshot.uses:
        labels = {"project": use.project, "priority": use.priority}
        values.setdefault("permits_total", []).append((labels, use.permits))
        values.setdefault("permit_tokens_total", []).append((labels, use.tokens))
        values.setdefault("wait_seconds_total", []).append((labels, use.waited_seconds))
        values.setdefault("refused_requests_total", []).append((labels, use.refused))
        values.setdefault("waiting", []).append((labels, use.waiting))
    return values
