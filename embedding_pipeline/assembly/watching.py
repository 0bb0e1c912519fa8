"""What the sensors ask: which alerts go out, and which days can be run again.

Belongs here: joining settings, store and the decisions of the core. Does not belong here:
Dagster (``defs`` wraps these), or any decision.
"""

from collections.abc import Collection, Mapping

from embedding_pipeline.alerts.sending import Delivery, deliver
from embedding_pipeline.alerts.webhook import Webhook
from embedding_pipeline.assembly.parts import build_budgets, has_state, open_store
from embedding_pipeline.assembly.probing import answers
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.ledger.deferred import OUTAGE, Backlog, backlogs
from embedding_pipeline.ledger.standing import Standing
from embedding_pipeline.pipeline.recovery import Recovery, recover, wants_probe
from embedding_pipeline.settings.environment import webhook_url
from embedding_pipeline.settings.tree import Settings


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


async def deferrals(settings: Settings) -> list[Backlog]:
    """What is deferred in the settings' space. Raises StateError."""
    if not has_state(settings):
        return []
    with open_store(settings) as store:
        found = await store.read(backlogs)
    return [one for one in found if one.space == str(settings.model_spec.space)]


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
    left = await deferrals(settings)
    if not left:
        return Recovery()
    rooms = [one.room for one in await standings(settings, clock)]
    price = settings.model_spec.nano_usd_per_token or 0
    over = wants_probe(left, busy) and await answers(settings, clock)
    passed = {OUTAGE} if over else set[str]()
    return recover(left, rooms, price, busy=busy, tried=tried, passed=passed, most=most)
