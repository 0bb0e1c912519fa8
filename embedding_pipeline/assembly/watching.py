"""What the sensors ask: which alerts go out, and which days can be run again.

Belongs here: joining settings, store and the decisions of the core. Does not belong here:
Dagster (``defs`` wraps these), or any decision.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from sqlalchemy import Connection

from embedding_pipeline.alerts.sending import Delivery, deliver
from embedding_pipeline.alerts.webhook import Webhook
from embedding_pipeline.assembly.parts import (
    build_budgets,
    build_datasets,
    has_state,
    open_store,
)
from embedding_pipeline.assembly.probing import answers
from embedding_pipeline.assembly.spaces import (
    SpacesState,
    active_target,
    model_of,
    spaces_of_a_run,
)
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.ledger.deferred import OUTAGE, Backlog, backlogs, forget_others
from embedding_pipeline.ledger.standing import Standing
from embedding_pipeline.pipeline.recovery import Recovery, recover, wants_probe
from embedding_pipeline.records import Space
from embedding_pipeline.settings.environment import webhook_url
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.spaces.in_use import in_use


async def send_alerts(settings: Settings, clock: Clock | None = None) -> Delivery:
    """File what the budgets give reason for, and send what is due.

    Raises:
        ConfigurationError: no webhook is set, or what is set is no address.
        StateError: the store cannot be used.
    """
    clock, budgets = clock or SystemClock(), build_budgets(settings)
    webhook = Webhook(webhook_url(settings.alerts))
    if not has_state(settings):
        return Delivery(0)
    now = int(clock.now() * 1000)
    with open_store(settings, clock) as store:
        if budgets is not None:
            await store.write(lambda c: budgets.keep(c, now, now))
        return await deliver(store, webhook, clock)


async def standings(settings: Settings, clock: Clock | None = None) -> list[Standing]:
    """Where every budget stands. Raises StateError."""
    clock, budgets = clock or SystemClock(), build_budgets(settings)
    if budgets is None:
        return []
    now = int(clock.now() * 1000)
    if not has_state(settings):
        return budgets.untouched(now)
    with open_store(settings, clock) as store:
        return await store.read(lambda c: budgets.standings(c, now))


async def deferrals(settings: Settings, clock: Clock | None = None) -> list[Backlog]:
    """What is deferred in the spaces that a run would write. Raises StateError."""
    if not has_state(settings):
        return []
    now = int((clock or SystemClock()).now() * 1000)
    before = active_target(settings, SpacesState(), build_datasets(settings))

    def work(connection: Connection) -> list[Backlog]:
        living = set(map(str, spaces_of_a_run(settings, connection, before, now)))
        return [one for one in backlogs(connection) if one.space in living]

    with open_store(settings) as store:
        return await store.read(work)


async def forget_abandoned(settings: Settings, clock: Clock | None = None) -> int:
    """Drop what waits in spaces that nobody counts on any more; how many chunks. Raises StateError.

    A space that is asked for again is built as a whole, whatever waited.
    """
    if not has_state(settings):
        return 0
    now = int((clock or SystemClock()).now() * 1000)
    before = active_target(settings, SpacesState(), build_datasets(settings))

    def work(connection: Connection) -> int:
        living = spaces_of_a_run(settings, connection, before, now) | in_use(connection)
        return forget_others(connection, set(map(str, living)))

    with open_store(settings) as store:
        return await store.write(work)


def _price(settings: Settings, space: str) -> int:
    """nano-USD a token in a space, by the name of its model; 0 where none is known."""
    try:
        return settings.priced(model_of(Space.parse(space))).nano_usd_per_token or 0
    except ConfigurationError:  # a model that is not here any more
        return 0


async def find_recovery(
    settings: Settings,
    *,
    busy: Collection[str],
    tried: Mapping[str, int],
    most: int,
    clock: Clock | None = None,
) -> Recovery:
    """Which days with deferred chunks to run again (see ``recovery.recover``).

    Where an outage left them, a provider is asked once whether it answers.
    """
    forgotten = await forget_abandoned(settings, clock)
    left = await deferrals(settings, clock)
    if not left:
        return Recovery(forgotten=forgotten)
    rooms = [one.room for one in await standings(settings, clock)]
    price = max(_price(settings, space) for space in {one.space for one in left})
    over = wants_probe(left, busy) and await answers(settings, clock)
    passed = {OUTAGE} if over else set[str]()
    found = recover(left, rooms, price, busy=busy, tried=tried, passed=passed, most=most)
    return replace(found, forgotten=forgotten)
