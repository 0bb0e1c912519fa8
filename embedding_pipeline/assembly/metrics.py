"""All figures of a deployment, from the state that its processes share.

Belongs here: gathering them. Does not belong here: the format (``exposition``), or serving
it (``cli.metrics``). Users are left out: there may be more of them than a time series
database wants labels.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection, func, select

from embedding_pipeline.alerts.outbox import waiting
from embedding_pipeline.assembly.parts import has_state, open_store
from embedding_pipeline.assembly.planning import limits_now
from embedding_pipeline.assembly.watching import standings
from embedding_pipeline.cache import groups
from embedding_pipeline.cache.stats import usage
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.exposition import Metric, Sample
from embedding_pipeline.ledger import deferred
from embedding_pipeline.ledger.queries import Total, totals
from embedding_pipeline.ledger.standing import Standing
from embedding_pipeline.limits.snapshot import metrics as limit_metrics
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.schema import flights, quarantine

_NANO: Final = 1e9


async def metrics_now(settings: Settings, clock: Clock | None = None) -> list[Metric]:
    """Every figure, as of now. What has no value yet is there without samples.

    Raises:
        StateError: the state store cannot be used.
    """
    clock = clock or SystemClock()
    found: list[Metric] = []
    if has_state(settings):
        with open_store(settings, clock) as store:
            found = await store.read(_of_state)
    budgets = await standings(settings, clock)
    return [*found, *_of_budgets(budgets), *limit_metrics(await limits_now(settings, clock))]


def _of_state(connection: Connection) -> list[Metric]:
    return [
        *_of_ledger(totals(connection)),
        *_of_cache(connection),
        *_of_chunks(connection),
        Metric("alerts_waiting", "gauge", "Alerts not sent yet.", [({}, waiting(connection))]),
    ]


def _of_ledger(found: Sequence[Total]) -> list[Metric]:
    def samples(figure: Callable[[Total], float]) -> list[Sample]:
        return [
            (
                {
                    "space": one.space,
                    "project": one.project,
                    "provider": one.provider,
                    "kind": one.kind,
                },
                figure(one),
            )
            for one in found
        ]

    return [
        Metric("requests_total", "counter", "Requests booked.", samples(lambda one: one.requests)),
        Metric(
            "input_tokens_total",
            "counter",
            "Tokens billed, as the API reported them.",
            samples(lambda one: one.tokens),
        ),
        Metric(
            "cost_usd_total",
            "counter",
            "Money booked, in US dollars.",
            samples(lambda one: one.cost_nano_usd / _NANO),
        ),
        Metric(
            "unknown_cost_usd_total",
            "counter",
            "The part of it that was in flight when a process died.",
            samples(lambda one: one.unknown_nano_usd / _NANO),
        ),
        Metric(
            "request_wait_seconds_total",
            "counter",
            "Time requests waited between attempts and for permits.",
            samples(lambda one: one.wait_ms / 1000),
        ),
    ]


def _of_cache(connection: Connection) -> list[Metric]:
    uses = usage(connection)
    spaces = groups.by_space(connection)
    labels = [{"space": one.space, "project": one.project, "tier": one.tier} for one in uses]
    figures = (
        ("hits", "Keys a tier was asked for and had.", [one.hits for one in uses]),
        ("misses", "Keys a tier was asked for and had not.", [one.misses for one in uses]),
        ("damaged", "Entries found damaged; among the misses.", [one.damaged for one in uses]),
    )
    counters = [
        Metric(f"cache_{name}_total", "counter", text, list(zip(labels, values, strict=True)))
        for name, text, values in figures
    ]
    return [
        *counters,
        Metric(
            "cache_entries",
            "gauge",
            "Vectors in the database tier.",
            [({"space": str(one.space)}, one.entries) for one in spaces],
        ),
        Metric(
            "cache_bytes",
            "gauge",
            "Bytes of the vectors in the database tier.",
            [({"space": str(one.space)}, one.bytes) for one in spaces],
        ),
    ]


def _of_chunks(connection: Connection) -> list[Metric]:
    later: Counter[tuple[str, str]] = Counter()
    for one in deferred.backlogs(connection):
        later[one.account.project, one.reason] += one.chunks
    held = (quarantine.c.project, quarantine.c.reason)
    out = (flights.c.provider, flights.c.kind)
    refused = connection.execute(select(*held, func.count()).group_by(*held).order_by(*held))
    flying = connection.execute(select(*out, func.count()).group_by(*out).order_by(*out))
    return [
        Metric(
            "deferred_chunks",
            "gauge",
            "Chunks left for later, by reason.",
            [({"project": p, "reason": r}, n) for (p, r), n in sorted(later.items())],
        ),
        Metric(
            "quarantined_chunks",
            "gauge",
            "Chunks the provider refuses, by reason.",
            [({"project": p, "reason": r}, n) for p, r, n in refused],
        ),
        Metric(
            "requests_in_flight",
            "gauge",
            "Requests that are out, batches among them.",
            [({"provider": p, "kind": k}, n) for p, k, n in flying],
        ),
    ]


def _of_budgets(found: Sequence[Standing]) -> list[Metric]:
    def samples(figure: Callable[[Standing], int]) -> list[Sample]:
        return [
            ({"scope": one.scope, "period": str(one.period)}, figure(one) / _NANO) for one in found
        ]

    return [
        Metric(
            "budget_limit_usd",
            "gauge",
            "What a budget allows in its period.",
            samples(lambda one: one.limit_nano),
        ),
        Metric(
            "budget_spent_usd",
            "gauge",
            "What was booked of it.",
            samples(lambda one: one.spent_nano),
        ),
        Metric(
            "budget_reserved_usd",
            "gauge",
            "What requests that are out can still be billed.",
            samples(lambda one: one.reserved_nano),
        ),
    ]
