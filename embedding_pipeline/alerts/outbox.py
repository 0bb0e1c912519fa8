"""Alerts on their way: written down once, sent until somebody has taken them.

Belongs here: statements on ``alerts``. Does not belong here: when to alert, or sending.

An alert is filed in the transaction that finds its reason, under a key that names it: the
second one with the same key is not filed, whoever files it. A sender takes what is due for
a while, so that no other sends it meanwhile; it is sent only once it was taken by the other
side. (A sender that dies in between sends it twice: rather that than never.)
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select, update

from embedding_pipeline.state.schema import alerts
from embedding_pipeline.state.statements import upsert_into

LONGEST_KEY: Final = 512
HOLD_MS: Final = 120_000
"""How long a sender has for what it took."""

FIRST_PAUSE_MS: Final = 30_000
LONGEST_PAUSE_MS: Final = 3_600_000


@dataclass(frozen=True)
class Alert:
    """One message for people.

    Attributes:
        key: names the reason; of one key one alert is ever sent.
        text: what to tell.
        attempts: how often sending it was begun.
    """

    key: str
    text: str
    attempts: int = 0


def file_alert(connection: Connection, key: str, text: str, now_ms: int) -> None:
    """Write an alert down, unless one with this key was before."""
    connection.execute(
        upsert_into(connection, alerts)
        .values(key=key[:LONGEST_KEY], text=text, filed_at=now_ms, due_at=now_ms, attempts=0)
        .on_conflict_do_nothing(index_elements=["key"])
    )


def take_due(connection: Connection, now_ms: int, most: int) -> list[Alert]:
    """Take alerts that are due, oldest first; no other sender gets them for ``HOLD_MS``."""
    c = alerts.c
    query = (
        select(c.key, c.text, c.attempts)
        .where(c.sent_at.is_(None), c.due_at <= now_ms)
        .order_by(c.filed_at, c.key)
        .limit(most)
    )
    found = [Alert(row.key, row.text, row.attempts + 1) for row in connection.execute(query)]
    for alert in found:
        connection.execute(
            update(alerts)
            .where(c.key == alert.key)
            .values(due_at=now_ms + HOLD_MS, attempts=alert.attempts)
        )
    return found


def mark_sent(connection: Connection, key: str, now_ms: int) -> None:
    """The other side has it."""
    connection.execute(update(alerts).where(alerts.c.key == key).values(sent_at=now_ms))


def put_off(connection: Connection, alert: Alert, now_ms: int) -> None:
    """It could not be delivered: try again later, and later still the more often it failed."""
    pause = min(FIRST_PAUSE_MS << min(alert.attempts - 1, 10), LONGEST_PAUSE_MS)
    connection.execute(
        update(alerts).where(alerts.c.key == alert.key).values(due_at=now_ms + pause)
    )


def waiting(connection: Connection) -> int:
    """How many alerts nobody has taken yet."""
    query = select(func.count()).select_from(alerts).where(alerts.c.sent_at.is_(None))
    return int(connection.scalar(query) or 0)
