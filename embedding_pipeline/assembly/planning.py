"""``plan`` from settings: what some days would take in their space or another one.

Belongs here: finding the parts, the limits and the budgets a plan is made from. Does not
belong here: counting (``pipeline.plan``), or printing.

Nothing is written: where there is no state yet, none is made.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from embedding_pipeline.assembly.batch_way import verdict_of
from embedding_pipeline.assembly.budgeting import objections
from embedding_pipeline.assembly.embedder import build_limit_store, limit_key
from embedding_pipeline.assembly.parts import (
    build_counter,
    build_datasets,
    has_state,
    open_store,
    peek_source,
)
from embedding_pipeline.assembly.service import service_config
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.limits.snapshot import Snapshot, snapshots
from embedding_pipeline.pipeline.plan import (
    Lookup,
    PlanParts,
    Rates,
    SpendingPlan,
    build_plan,
    looking_up,
    nothing_known,
)
from embedding_pipeline.pipeline.representatives import Representatives
from embedding_pipeline.settings.tree import EmbeddingConfig, Settings


async def plan_spending(
    settings: Settings, days: Sequence[str], *, model: str | None = None, clock: Clock | None = None
) -> SpendingPlan:
    """What embedding ``days`` would take: tokens after deduplication and cache, price, time.

    Datasets that are there are read; what is missing is made in a temporary folder.

    Args:
        settings: what a run would be made with.
        days: partitions in ascending order.
        model: another model than the settings' (``openai/…``); None: theirs.
        clock: time.

    Raises:
        ConfigurationError: there is no such model.
        DataError: a dataset that is there is damaged.
        SourceError: a day that was not made yet cannot be read.
        StateError: the cache, the limits or the budgets cannot be asked.
    """
    chosen, clock = with_model(settings, model), clock or SystemClock()
    config = service_config(chosen, "")
    async with AsyncExitStack() as stack:
        chunks = Representatives(
            build_datasets(chosen),
            peek_source(chosen),
            build_counter(chosen),
            chosen.chunking,
            chosen.dedup,
        )
        parts = PlanParts(
            stack.enter_context(chunks),
            _lookup(chosen, clock, stack),
            config.rules,
            config.caps,
            config.spec,
        )
        plan = await build_plan(parts, days, await rates_now(chosen, clock))
    plan = replace(plan, verdict=verdict_of(chosen, plan.total.input_tokens))
    return replace(plan, objections=await objections(chosen, plan, clock))


def with_model(settings: Settings, model: str | None) -> Settings:
    """The same settings with another model, at its native dimensions."""
    if model is None:
        return settings
    chosen = settings.model_copy(update={"embedding": EmbeddingConfig(model=model)})
    _ = chosen.model_spec  # raises where there is no such model
    return chosen


def _lookup(settings: Settings, clock: Clock, stack: AsyncExitStack) -> Lookup:
    if not has_state(settings):
        return nothing_known
    store = stack.enter_context(open_store(settings, clock))
    return looking_up(store, settings.model_spec.space)


async def rates_now(settings: Settings, clock: Clock) -> Rates:
    """The rates the model's requests are held to: what is set, and what was learned."""
    if settings.model_spec.is_local:
        return Rates()
    key = limit_key(settings)
    found = [snapshot for snapshot in await limits_now(settings, clock) if snapshot.key == key]
    learned = {
        resource.name: resource.per_minute
        for snapshot in found
        for resource in snapshot.resources
        if resource.ceiling is not None
    }
    named = settings.limits
    return Rates(
        _lower(named.tokens_per_minute, learned.get("tokens")),
        _lower(named.requests_per_minute, learned.get("requests")),
    )


def _lower(*rates: int | None) -> int | None:
    return min((rate for rate in rates if rate is not None), default=None)


async def limits_now(settings: Settings, clock: Clock) -> list[Snapshot]:
    """The limits that the settings lead to; empty where there is no state yet."""
    if settings.redis_url is None and not has_state(settings):
        return []
    store = build_limit_store(settings, clock)
    try:
        return snapshots(await store.states())
    finally:
        await store.aclose()
