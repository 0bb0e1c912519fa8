"""Single flight: a key is fetched by one flight at a time, whatever process it is in."""

from pathlib import Path

import pytest
from sqlalchemy import Connection

from embedding_pipeline.cache import claims
from embedding_pipeline.errors import StateError
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.records import Kind, digest_of
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.stores import another

pytestmark = pytest.mark.anyio

KEYS = [digest_of(str(n)) for n in range(1200)]


def fly(connection: Connection, name: str) -> None:
    flight = Flight(name, "owner", 1, "", "openai", Kind.API, 20, ())
    flights.open_flight(connection, flight, 0)


async def test_a_claim_is_seen_by_another_store_on_the_file(store: Store, tmp_path: Path) -> None:
    await store.write(lambda c: claims.claim(c, 1, KEYS, "f"))
    with another(store) as other:
        assert await other.read(lambda c: claims.held(c, 1, KEYS)) == set(KEYS)
        assert await other.read(lambda c: claims.held(c, 2, KEYS)) == set()


async def test_a_key_cannot_be_claimed_twice(store: Store, tmp_path: Path) -> None:
    await store.write(lambda c: claims.claim(c, 1, KEYS[:2], "f"))
    with another(store) as other, pytest.raises(StateError):
        await other.write(lambda c: claims.claim(c, 1, KEYS[1:3], "g"))
    assert await store.read(lambda c: claims.held(c, 1, KEYS)) == set(KEYS[:2])


async def test_a_flight_gives_back_its_own_keys_only(store: Store) -> None:
    await store.write(lambda c: claims.claim(c, 1, KEYS[:2], "f"))
    await store.write(lambda c: claims.claim(c, 1, KEYS[2:4], "g"))
    await store.write(lambda c: claims.release(c, 1, KEYS, "f"))
    assert await store.read(lambda c: claims.held(c, 1, KEYS)) == set(KEYS[2:4])


async def test_keys_of_flights_that_are_gone_are_given_back(store: Store) -> None:
    await store.write(lambda c: fly(c, "alive"))
    await store.write(lambda c: claims.claim(c, 1, KEYS[:2], "alive"))
    await store.write(lambda c: claims.claim(c, 1, KEYS[2:9], "gone"))
    assert await store.write(claims.release_orphans) == 7
    assert await store.read(lambda c: claims.held(c, 1, KEYS)) == set(KEYS[:2])


async def test_claiming_nothing_is_nothing(store: Store) -> None:
    await store.write(lambda c: claims.claim(c, 1, [], "f"))
    assert await store.read(lambda c: claims.held(c, 1, [])) == set()


async def test_keys_are_taken_all_or_none(store: Store) -> None:
    assert await store.write(lambda c: claims.take(c, 1, KEYS[:600], "f"))
    assert not await store.write(lambda c: claims.take(c, 1, KEYS[599:], "g"))
    assert await store.write(lambda c: claims.take(c, 2, KEYS, "g")), "another space"
    held = await store.read(lambda c: claims.holders(c, 1, KEYS))
    assert held == dict.fromkeys(KEYS[:600], "f")


async def test_taking_nothing_is_nothing(store: Store) -> None:
    assert await store.write(lambda c: claims.take(c, 1, [], "f"))
    assert await store.read(lambda c: claims.held(c, 1, KEYS)) == set()
