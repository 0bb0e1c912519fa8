"""Delivering the alerts that are due.

Belongs here: taking, sending, marking. Does not belong here: filing alerts.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final

from sqlalchemy import Connection

from embedding_pipeline.alerts import outbox
from embedding_pipeline.alerts.webhook import Webhook
from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import AlertNotSent
from embedding_pipeline.state.store import Store

AT_ONCE: Final = 5
"""Alerts taken at a time: with ``webhook.SECONDS`` each, they are sent before they are due
again."""


@dataclass(frozen=True)
class Delivery:
    """How it went.

    Attributes:
        sent: alerts the other side has taken.
        problem: why the next one was not taken, or "".
    """

    sent: int
    problem: str = ""


async def deliver(store: Store, webhook: Webhook, clock: Clock) -> Delivery:
    """Send what is due; stop at the first that is not taken. Raises StateError."""
    sent = 0
    while taken := await store.write(partial(_take, clock)):
        for number, alert in enumerate(taken):
            try:
                await webhook.send(alert.text)
            except AlertNotSent as exc:
                await store.write(partial(_put_off, taken[number:], clock))
                return Delivery(sent, str(exc))
            await store.write(partial(_mark, alert, clock))
            sent += 1
    return Delivery(sent)


def _take(clock: Clock, connection: Connection) -> list[outbox.Alert]:
    return outbox.take_due(connection, _now_ms(clock), AT_ONCE)


def _mark(alert: outbox.Alert, clock: Clock, connection: Connection) -> None:
    outbox.mark_sent(connection, alert.key, _now_ms(clock))


def _put_off(alerts: list[outbox.Alert], clock: Clock, connection: Connection) -> None:
    for alert in alerts:
        outbox.put_off(connection, alert, _now_ms(clock))


def _now_ms(clock: Clock) -> int:
    return int(clock.now() * 1000)
