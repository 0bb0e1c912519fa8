"""The hot statements: many rows, more keys than fit one statement, exactly the rows meant."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Connection

from embedding_pipeline.records import Digest, digest_of
from embedding_pipeline.state.schema import claims
from embedding_pipeline.state.statements import (
    BATCH,
    SKIP,
    delete_by_digest,
    insert_many,
    select_by_digest,
)
from embedding_pipeline.state.store import Store

pytestmark = pytest.mark.anyio

KEYS = [digest_of(str(n)) for n in range(2 * BATCH + 7)]


def _found(connection: Connection, space: int, keys: Sequence[Digest]) -> set[bytes]:
    rows = select_by_digest(connection, claims, ("digest",), space, keys)
    return {bytes(digest) for (digest,) in rows}


@pytest.fixture
async def filled(store: Store) -> Store:
    """Claims of all keys in space 1 for flight ``f``, and of the first ten in space 2."""
    rows = [(1, key, "f") for key in KEYS] + [(2, key, "g") for key in KEYS[:10]]
    await store.write(lambda c: insert_many(c, claims, rows))
    return store


async def test_more_keys_than_fit_one_statement_are_all_found(filled: Store) -> None:
    assert await filled.read(lambda c: _found(c, 1, KEYS)) == set(KEYS)
    assert await filled.read(lambda c: _found(c, 2, KEYS)) == set(KEYS[:10])
    assert await filled.read(lambda c: _found(c, 1, [])) == set()


async def test_only_the_rows_meant_are_deleted(filled: Store) -> None:
    await filled.write(lambda c: delete_by_digest(c, claims, 1, KEYS[5:], flight_id="other"))
    assert await filled.read(lambda c: _found(c, 1, KEYS)) == set(KEYS)
    await filled.write(lambda c: delete_by_digest(c, claims, 1, KEYS[5:], flight_id="f"))
    assert await filled.read(lambda c: _found(c, 1, KEYS)) == set(KEYS[:5])
    assert await filled.read(lambda c: _found(c, 2, KEYS)) == set(KEYS[:10])


async def test_skipping_keeps_the_first_row_of_a_key(filled: Store) -> None:
    again = [(1, KEYS[0], "late"), (1, digest_of("new"), "late")]
    await filled.write(lambda c: insert_many(c, claims, again, conflict=SKIP))
    rows = await filled.read(
        lambda c: list(select_by_digest(c, claims, ("flight_id",), 1, [KEYS[0], digest_of("new")]))
    )
    assert sorted(flight for (flight,) in rows) == ["f", "late"]


async def test_no_rows_are_no_statement(store: Store) -> None:
    await store.write(lambda c: insert_many(c, claims, []))
    assert await store.read(lambda c: _found(c, 1, KEYS)) == set()
