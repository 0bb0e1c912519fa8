"""Budgets over the ledger: where each stands, and money taken from all of them at once.

Belongs here: statements on ``budgets`` and ``reservations``, to be run inside the caller's
transaction. Does not belong here: which texts to leave out (``affording``), or what happens
to them then.

Spent is the sum of the ledger over the budget's period, by the time each request left; the
table keeps a running sum up to some entry, so that only newer ones are added up. Whatever
process books an entry, with these budgets in its settings or without, it counts. Reserved
is the sum over flights that are out: a flight that ends, however it ends, gives its money
back in the very transaction that books its bill.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, func, insert, select, true

from embedding_pipeline.alerts.outbox import file_alert
from embedding_pipeline.ledger.affording import covers
from embedding_pipeline.ledger.config import BudgetConfig
from embedding_pipeline.ledger.periods import Window, window_of
from embedding_pipeline.ledger.standing import EXHAUSTED, Standing
from embedding_pipeline.state.schema import budgets, flights, ledger, reservations
from embedding_pipeline.state.statements import upsert_into

Payer = tuple[str, str]
"""Project and user."""


@dataclass(frozen=True)
class Budgets:
    """The budgets of the settings.

    Attributes:
        configs: what is bounded.
        zone: whose midnight divides days and months.
    """

    configs: tuple[BudgetConfig, ...]
    zone: tzinfo

    def standings(self, connection: Connection, at_ms: int) -> list[Standing]:
        """Where each budget stands in the period of ``at_ms``; changes nothing."""
        return [standing for standing, _ in self._read(connection, at_ms)]

    def keep(self, connection: Connection, at_ms: int, now_ms: int) -> list[Standing]:
        """As ``standings``; keeps the sums, and files the alerts that are due."""
        found = self._read(connection, at_ms)
        last = _last_entry(connection)
        for standing, through in found:
            if through < last:
                _store(connection, standing, last)
            for share in standing.reached():
                tell(connection, standing, share, now_ms)
        return [standing for standing, _ in found]

    def _read(self, connection: Connection, at_ms: int) -> list[tuple[Standing, int]]:
        """Every budget, and the entry up to which its running sum is stored."""
        last, held = _last_entry(connection), _held(connection)
        found = []
        for config in self.configs:
            window = window_of(config.period, at_ms, self.zone)
            spent, through = _stored(connection, config, window)
            if through < last:
                spent += _newer(connection, config.scope, window, through)
            reserved = _reserved(held, config.scope, window)
            found.append((self._standing(config, window, spent, reserved), through))
        return found

    def untouched(self, at_ms: int) -> list[Standing]:
        """Where each budget stands before anything was ever spent."""
        return [
            self._standing(config, window_of(config.period, at_ms, self.zone))
            for config in self.configs
        ]

    def _standing(
        self, config: BudgetConfig, window: Window, spent: int = 0, reserved: int = 0
    ) -> Standing:
        return Standing(
            config.scope,
            config.period,
            config.limit_nano,
            spent,
            reserved,
            window,
            config.alert_at,
            self.zone,
        )


def tell(connection: Connection, standing: Standing, share: float, now_ms: int) -> None:
    """File the alert that a share of a budget is spent."""
    text = f"{share:.0%} of a budget is spent. {standing.words()}"
    file_alert(connection, standing.alert_key(f"{share:g}"), text, now_ms)


def tell_exhausted(connection: Connection, standing: Standing, now_ms: int) -> None:
    """File the alert that work was left undone for want of money."""
    text = f"A budget is exhausted, and work is deferred. {standing.words()}"
    file_alert(connection, standing.alert_key(EXHAUSTED), text, now_ms)


def reserve(connection: Connection, flight_id: str, amounts: Mapping[Payer, int]) -> None:
    """What is out of a flight can be billed this much now, instead of what stood there."""
    release(connection, [flight_id])
    rows = [
        {"flight_id": flight_id, "project": project, "user": user, "nano_usd": amount}
        for (project, user), amount in amounts.items()
        if amount
    ]
    if rows:
        connection.execute(insert(reservations), rows)


def held_by(connection: Connection, flight_id: str) -> dict[Payer, int]:
    """What a flight has reserved."""
    c = reservations.c
    rows = connection.execute(select(c.project, c.user, c.nano_usd).where(c.flight_id == flight_id))
    return {(row[0], row[1]): int(row[2]) for row in rows}


def release(connection: Connection, flight_ids: Sequence[str]) -> None:
    """Give back what flights have reserved."""
    connection.execute(delete(reservations).where(reservations.c.flight_id.in_(flight_ids)))


def release_orphans(connection: Connection) -> None:
    """Forget reservations of flights that have ended; they count no more anyway."""
    out = select(flights.c.id).where(flights.c.id == reservations.c.flight_id).exists()
    connection.execute(delete(reservations).where(~out))


def _last_entry(connection: Connection) -> int:
    return int(connection.scalar(select(func.max(ledger.c.id))) or 0)


def _stored(connection: Connection, config: BudgetConfig, window: Window) -> tuple[int, int]:
    c = budgets.c
    row = connection.execute(
        select(c.spent_nano_usd, c.through_id).where(
            c.scope == config.scope, c.period == config.period, c.start_at == window.start_ms
        )
    ).first()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def _store(connection: Connection, standing: Standing, through: int) -> None:
    new = upsert_into(connection, budgets).values(
        scope=standing.scope,
        period=standing.period,
        start_at=standing.window.start_ms,
        spent_nano_usd=standing.spent_nano,
        through_id=through,
    )
    connection.execute(
        new.on_conflict_do_update(
            index_elements=["scope", "period", "start_at"],
            set_={
                "spent_nano_usd": new.excluded.spent_nano_usd,
                "through_id": new.excluded.through_id,
            },
        )
    )


def _newer(connection: Connection, scope: str, window: Window, through: int) -> int:
    """What the entries after number ``through`` add to a period."""
    c = ledger.c
    query = select(func.coalesce(func.sum(c.cost_nano_usd), 0)).where(
        c.id > through, c.at >= window.start_ms, _within(scope)
    )
    if window.end_ms is not None:
        query = query.where(c.at < window.end_ms)
    return int(connection.scalar(query) or 0)


def _within(scope: str) -> ColumnElement[bool]:
    kind, _, name = scope.partition(":")
    if kind == "all":
        return true()
    return and_((ledger.c.user if kind == "user" else ledger.c.project) == name)


def _held(connection: Connection) -> Sequence[Row[tuple[str, str, int, int]]]:
    """Reservations of flights that are out: project, user, when it left, how much."""
    c = reservations.c
    return connection.execute(
        select(c.project, c.user, flights.c.started_at, c.nano_usd).join(
            flights, flights.c.id == c.flight_id
        )
    ).all()


def _reserved(held: Sequence[Row[tuple[str, str, int, int]]], scope: str, window: Window) -> int:
    return sum(
        int(amount)
        for project, user, started, amount in held
        if window.holds(started) and covers(scope, project, user)
    )
