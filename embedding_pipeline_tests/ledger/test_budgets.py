"""Standings are the ledger's sums; alerts are filed once, whoever finds their reason."""

from datetime import UTC

import pytest
from sqlalchemy import Connection, select

from embedding_pipeline.cache import database
from embedding_pipeline.ledger import budgets as money
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.ledger.config import BudgetConfig
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.ledger.shares import Share
from embedding_pipeline.records import Account, Kind, Space
from embedding_pipeline.state import schema
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.stores import another

pytestmark = pytest.mark.anyio

NOON = 1_767_268_800_000  # 2026-01-01T12:00 UTC
DAY_MS = 86_400_000
SPACE = Space("fake", "hash", "", 8)
BUDGETS = Budgets(
    (
        BudgetConfig(scope="all", period="total", limit_usd=1e-6, alert_at=(0.5, 0.8)),
        BudgetConfig(scope="project:a", period="day", limit_usd=1e-6),
        BudgetConfig(scope="user:u", period="month", limit_usd=1e-6),
    ),
    UTC,
)


def spend(connection: Connection, tokens: int, at: int, project: str = "a", user: str = "") -> None:
    number = database.space_id(connection, SPACE)
    account = Account(project, user)
    flight = Flight(flights.new_id(), "o", number, "", "p", Kind.API, 1, (Share(account, tokens),))
    flights.settle(
        connection,
        flight,
        flight.shares,
        tokens=tokens,
        requests=1,
        wait_ms=0,
        provider="p",
        began_ms=at,
    )


def reserve(connection: Connection, amount: int, at: int, project: str = "a") -> str:
    share = (Share(Account(project), amount),)
    flight = Flight(flights.new_id(), "o", 1, "", "p", Kind.API, 1, share)
    flights.open_flight(connection, flight, at)
    money.reserve(connection, flight.id, {(project, ""): amount})
    return flight.id


def figures(connection: Connection, at: int = NOON) -> list[tuple[int, int]]:
    found = BUDGETS.standings(connection, at)
    return [(one.spent_nano, one.reserved_nano) for one in found]


def keep(connection: Connection, at: int = NOON) -> None:
    BUDGETS.keep(connection, at, at)


def filed(connection: Connection) -> list[str]:
    names = connection.scalars(select(schema.alerts.c.key).order_by(schema.alerts.c.key)).all()
    return ["|".join(name.split("|")[1:3] + name.split("|")[5:]) for name in names]


async def test_spending_counts_for_its_scope_and_the_period_it_left_in(store: Store) -> None:
    def work(connection: Connection) -> None:
        spend(connection, 10, NOON)
        spend(connection, 100, NOON, project="b", user="u")
        spend(connection, 1000, NOON - DAY_MS)

    await store.write(work)
    assert await store.read(figures) == [(1110, 0), (10, 0), (100, 0)]
    yesterday = await store.read(lambda c: figures(c, NOON - DAY_MS))
    assert yesterday == [(1110, 0), (1000, 0), (0, 0)], "user:u had no such month"


async def test_the_running_sum_is_the_ledgers_sum_whoever_booked(store: Store) -> None:
    for round_ in range(4):
        await store.write(lambda c: spend(c, 10, NOON))
        if round_ % 2:
            await store.write(keep)
        assert (await store.read(figures))[1] == (10 * (round_ + 1), 0)
    # an entry that comes late for a period that was summed up before, or is taken back
    await store.write(lambda c: spend(c, -5, NOON))
    await store.write(lambda c: spend(c, 7, NOON + DAY_MS))
    await store.write(lambda c: keep(c, NOON + DAY_MS))
    await store.write(lambda c: spend(c, 3, NOON))
    await store.write(keep)
    assert await store.read(figures) == [(45, 0), (38, 0), (0, 0)]


async def test_reserved_is_what_open_flights_hold(store: Store) -> None:
    one = await store.write(lambda c: reserve(c, 30, NOON))
    await store.write(lambda c: reserve(c, 5, NOON, "b"))
    assert await store.read(figures) == [(0, 35), (0, 30), (0, 0)]
    await store.write(lambda c: money.reserve(c, one, {("a", ""): 20}))
    assert (await store.read(figures))[1] == (0, 20)
    await store.write(lambda c: flights.close_flight(c, one))
    assert await store.read(figures) == [(0, 5), (0, 0), (0, 0)]
    await store.write(money.release_orphans)
    rows = await store.read(lambda c: c.execute(select(schema.reservations)).all())
    assert len(rows) == 1


async def test_each_share_is_told_once_by_however_many(store: Store) -> None:
    await store.write(lambda c: spend(c, 600, NOON, "b"))
    with another(store) as other:
        for one in (store, other, store):
            await one.write(keep)
        assert await store.read(filed) == ["all|total|0.5"]
        await store.write(lambda c: spend(c, 300, NOON))
        await other.write(keep)
        (first, *_) = await store.read(lambda c: BUDGETS.standings(c, NOON))
        await store.write(lambda c: money.tell_exhausted(c, first, NOON))
        await other.write(lambda c: money.tell_exhausted(c, first, NOON))
    assert await store.read(filed) == ["all|total|0.5", "all|total|0.8", "all|total|exhausted"]


async def test_the_next_period_is_told_again(store: Store) -> None:
    for day in range(2):
        at = NOON + day * DAY_MS
        await store.write(lambda c, at=at: spend(c, 900, at))  # type: ignore[misc]
        await store.write(lambda c, at=at: keep(c, at))  # type: ignore[misc]
    assert (await store.read(filed)).count("project:a|day|0.8") == 2
