"""What a change of the model would cost, and whether that lets its build go on.

Belongs here: asking the plan, and writing down what it said. Does not belong here: counting
(``pipeline.plan``), or the rule (``spaces.decision``).
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from embedding_pipeline.alerts.outbox import file_alert
from embedding_pipeline.assembly.parts import open_store
from embedding_pipeline.assembly.planning import plan_spending
from embedding_pipeline.assembly.switching import look, now_ms
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.pipeline.plan_words import sentences
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.spaces import builds
from embedding_pipeline.spaces.decision import Price, priced
from embedding_pipeline.spaces.records import UNPRICED, Build, BuildState


async def price_of(settings: Settings, days: Sequence[str], clock: Clock) -> Price:
    """What embedding ``days`` with the settings' model would cost, and who objects."""
    plan = await plan_spending(settings, days, clock=clock)
    return Price(
        plan.chosen_cost_nano_usd, plan.objections or (), " ".join(list(sentences(plan))[:2])
    )


async def price_build(settings: Settings, key: str, clock: Clock | None = None) -> Build | None:
    """Plan the days that a build lacks: it goes on at that price, or waits for a person.

    Args:
        settings: what the build is made with.
        key: the build.
        clock: time.

    Returns:
        The build as it is now; None when it is over, or no longer what the settings ask for.

    Raises:
        DataError: a dataset is damaged.
        StateError: the cache, the limits or the budgets cannot be asked.
    """
    clock = clock or SystemClock()
    with open_store(settings, clock) as store:
        world = look(settings, store, clock)
        seen = world.build
        if seen is None or (seen.key, seen.target) != (key, world.wanted):
            return None
        if seen.state not in UNPRICED:
            return seen
        price = await price_of(settings, world.stale, clock)
        limit, at = settings.spaces.max_auto_cost_nano_usd, now_ms(clock)
        await store.write(lambda connection: _settle(connection, seen, price, limit, at))
        return await store.read(lambda connection: builds.by_key(connection, key))


def _settle(connection: Connection, seen: Build, price: Price, limit: int, at: int) -> None:
    """Move the build on, unless somebody did meanwhile; what waits for the first time is told."""
    state, note = priced(price, limit)
    cost = price.cost_nano_usd or 0
    moved = builds.move(connection, seen, state, note, at, cost_nano_usd=cost)
    if moved and state is BuildState.WAITING and seen.state is BuildState.PRICING:
        text = f"The change to {seen.target} waits: {note}"
        file_alert(connection, f"space_build/{seen.key}/waiting", text, at)
