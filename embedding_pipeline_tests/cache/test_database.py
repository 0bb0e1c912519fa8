"""The durable tier: every key asked for is answered, damage is reported and repaired."""

from collections.abc import Sequence

import numpy as np
import pytest
from sqlalchemy import Connection, select, update

from embedding_pipeline.cache import database
from embedding_pipeline.cache.tier import Lookup
from embedding_pipeline.records import Digest, Space, Vectors, digest_of
from embedding_pipeline.state.schema import vectors as table
from embedding_pipeline.state.statements import BATCH
from embedding_pipeline.state.store import Store

pytestmark = pytest.mark.anyio

SPACE = Space("openai", "model", "", 4)
OTHER = Space("openai", "other", "", 4)
KEYS = [digest_of(str(n)) for n in range(2 * BATCH + 3)]


def rows(count: int, seed: int = 0) -> Vectors:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


async def put(
    store: Store, digests: Sequence[Digest], vectors: Vectors, space: Space = SPACE, entry: int = 1
) -> None:
    def work(connection: Connection) -> None:
        number = database.space_id(connection, space)
        paid = [entry] * len(digests)
        database.put_many(connection, number, space, digests, vectors, paid, dtype="float32")

    await store.write(work)


async def get(store: Store, digests: Sequence[Digest], space: Space = SPACE) -> Lookup:
    number = await store.write(lambda c: database.space_id(c, space))
    return await store.read(lambda c: database.get_many(c, number, space, digests))


async def damage(store: Store, digest: Digest) -> None:
    def work(connection: Connection) -> None:
        value = connection.scalar(select(table.c.value).where(table.c.digest == digest))
        assert value is not None
        bad = bytes(value[:-1]) + bytes([value[-1] ^ 1])
        connection.execute(update(table).where(table.c.digest == digest).values(value=bad))

    await store.write(work)


async def test_more_keys_than_fit_one_statement_come_back_each_at_its_place(store: Store) -> None:
    vectors = rows(len(KEYS))
    await put(store, KEYS[::2], vectors[::2])
    found = await get(store, KEYS)
    assert found.found.tolist() == [n % 2 == 0 for n in range(len(KEYS))]
    assert (found.vectors[::2] == vectors[::2]).all()
    assert not found.vectors[1::2].any(), "rows not found are zero"
    assert found.damaged == ()


async def test_a_key_asked_for_several_times_is_answered_every_time(store: Store) -> None:
    vectors = rows(2)
    await put(store, KEYS[:2], vectors)
    found = await get(store, [KEYS[1], KEYS[9], KEYS[1], KEYS[0], KEYS[9], KEYS[1]])
    assert found.found.tolist() == [True, False, True, True, False, True]
    assert (found.vectors[[0, 2, 3, 5]] == vectors[[1, 1, 0, 1]]).all()


async def test_nothing_asked_is_nothing_found(store: Store) -> None:
    found = await get(store, [])
    assert found.vectors.shape == (0, 4)
    assert found.found.shape == (0,)


async def test_two_spaces_do_not_know_each_others_vectors(store: Store) -> None:
    await put(store, KEYS[:1], rows(1), OTHER)
    assert not (await get(store, KEYS[:1])).found.any()
    assert (await get(store, KEYS[:1], OTHER)).found.all()


async def test_a_space_has_one_number(store: Store) -> None:
    first = await store.write(lambda c: database.space_id(c, SPACE))
    second = await store.write(lambda c: database.space_id(c, OTHER))
    assert first != second
    assert await store.write(lambda c: database.space_id(c, SPACE)) == first


async def test_the_first_stored_vector_stays(store: Store) -> None:
    first = rows(1)
    await put(store, KEYS[:1], first, entry=1)
    await put(store, KEYS[:1], rows(1, seed=9), entry=2)
    assert ((await get(store, KEYS[:1])).vectors == first).all()
    paid = await store.read(lambda c: database.paid_by(c, 1, KEYS[:2]))
    assert paid == {KEYS[0]: 1}


async def test_a_damaged_entry_is_no_hit_and_is_named(store: Store) -> None:
    vectors = rows(3)
    await put(store, KEYS[:3], vectors)
    await damage(store, KEYS[1])
    found = await get(store, [KEYS[0], KEYS[1], KEYS[2], KEYS[1]])
    assert found.found.tolist() == [True, False, True, False]
    assert found.damaged == (KEYS[1],)
    assert not found.vectors[[1, 3]].any()


async def test_a_damaged_entry_is_repaired_by_the_next_write_once_forgotten(store: Store) -> None:
    vectors = rows(3)
    await put(store, KEYS[:3], vectors)
    await damage(store, KEYS[1])
    removed = await store.write(lambda c: database.forget_damaged(c, 1, SPACE, KEYS[:3]))
    assert removed == 1
    assert await store.read(lambda c: database.existing(c, 1, KEYS[:3])) == {KEYS[0], KEYS[2]}
    await put(store, KEYS[:3], vectors)
    found = await get(store, KEYS[:3])
    assert found.found.all()
    assert (found.vectors == vectors).all()


async def test_what_was_repaired_meanwhile_is_not_forgotten(store: Store) -> None:
    await put(store, KEYS[:1], rows(1))
    assert await store.write(lambda c: database.forget_damaged(c, 1, SPACE, KEYS[:1])) == 0
    assert (await get(store, KEYS[:1])).found.all()


async def test_forgetting_removes_what_is_named_and_nothing_else(store: Store) -> None:
    await put(store, KEYS, rows(len(KEYS)))
    await store.write(lambda c: database.forget(c, 1, KEYS[1:]))
    assert await store.read(lambda c: database.existing(c, 1, KEYS)) == {KEYS[0]}
