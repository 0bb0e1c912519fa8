"""Requests that are out, and what the books say of them in the end."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from embedding_pipeline.cache.database import space_id
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.flights import UNKNOWN, Flight
from embedding_pipeline.ledger.queries import balance, sums
from embedding_pipeline.ledger.shares import Share
from embedding_pipeline.records import Account, Kind, Space
from embedding_pipeline.state import schema
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.stores import another

pytestmark = pytest.mark.anyio

SPACE = Space("openai", "model", "", 4)
ANN, BOB = Account("ann", "u1", "2026-01-01"), Account("bob", "", "2026-01-02")
SHARES = (Share(ANN, 30), Share(BOB, 10))
NOW = 1_790_000_000_000


def flight(name: str = "f", owner: str = "owner", price: int | None = 20) -> Flight:
    return Flight(name, owner, 1, "run", "openai", Kind.API, price, SHARES)


def entries(connection: Connection) -> list[tuple[str, int, int, int, str]]:
    c = schema.ledger.c
    query = select(c.project, c.tokens, c.cost_nano_usd, c.requests, c.outcome).order_by(c.id)
    return [tuple(row) for row in connection.execute(query)]


def out(connection: Connection) -> set[str]:
    return set(connection.scalars(select(schema.flights.c.id)))


@pytest.fixture
async def books(store: Store) -> Store:
    """A store that knows the space, with one flight out."""

    def work(connection: Connection) -> None:
        assert space_id(connection, SPACE) == 1
        flights.open_flight(connection, flight(), NOW)

    await store.write(work)
    return store


def settle(connection: Connection, own: Flight, tokens: int = 41) -> dict[Account, int]:
    return flights.settle(
        connection,
        own,
        own.shares,
        tokens=tokens,
        requests=3,
        wait_ms=250,
        provider="azure",
        began_ms=NOW,
    )


async def test_a_settled_request_is_booked_for_each_account_at_the_price_of_its_flight(
    books: Store,
) -> None:
    numbers = await books.write(lambda c: settle(c, flight()))
    assert list(numbers) == [ANN, BOB]
    assert await books.read(entries) == [
        ("ann", 31, 620, 3, "settled"),
        ("bob", 10, 200, 0, "settled"),
    ]
    assert (await books.read(balance)).unbalanced == 0


async def test_a_model_without_a_price_costs_nothing_and_says_so(books: Store) -> None:
    await books.write(lambda c: settle(c, flight(price=None)))
    assert [cost for _, _, cost, _, _ in await books.read(entries)] == [0, 0]
    prices = await books.read(lambda c: set(c.scalars(select(schema.ledger.c.price_nano_usd))))
    assert prices == {None}


async def test_what_a_dead_owner_had_out_is_booked_as_unknown_once(
    books: Store, tmp_path: Path
) -> None:
    await books.write(lambda c: flights.open_flight(c, flight("g", "other"), NOW))
    with another(books) as other:
        assert await other.write(lambda c: flights.expire(c, ["owner"])) == 1
        assert await other.write(lambda c: flights.expire(c, ["owner"])) == 0
    assert await books.read(out) == {"g"}
    assert await books.read(entries) == [
        ("ann", 30, 600, 1, UNKNOWN),
        ("bob", 10, 200, 0, UNKNOWN),
    ]


async def test_nobody_dead_is_nothing_booked(books: Store) -> None:
    assert await books.write(lambda c: flights.expire(c, [])) == 0
    assert await books.read(out) == {"f"}


async def test_of_a_request_that_was_split_only_what_is_still_out_becomes_unknown(
    books: Store,
) -> None:
    await books.write(lambda c: flights.update_shares(c, "f", [Share(BOB, 4)]))
    await books.write(lambda c: flights.expire(c, ["owner"]))
    assert await books.read(entries) == [("bob", 4, 80, 1, UNKNOWN)]


async def test_a_flight_taken_for_dead_is_put_right_when_it_comes_in(books: Store) -> None:
    await books.write(lambda c: flights.expire(c, ["owner"]))
    assert not await books.read(lambda c: flights.is_open(c, "f"))
    await books.write(lambda c: flights.regain(c, flight(), SHARES, NOW))
    assert await books.read(lambda c: flights.is_open(c, "f"))
    await books.write(lambda c: settle(c, flight()))
    await books.write(lambda c: flights.close_flight(c, "f"))
    found = await books.read(sums)
    assert sum(entry.tokens for entry in found) == 41
    assert sum(entry.unknown_nano_usd for entry in found) == 0
    assert sum(entry.requests for entry in found) == 3
    verdict = await books.read(balance)
    assert (verdict.entries, verdict.unbalanced) == (6, 0), "entries are added, never changed"


def test_every_flight_has_its_own_name() -> None:
    assert len({flights.new_id() for _ in range(100)}) == 100
