"""Eviction: least recently used first, in small steps, never what is protected."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from embedding_pipeline.cache import database, groups
from embedding_pipeline.cache.codec import OVERHEAD
from embedding_pipeline.cache.eviction import Group, Policy, Step, choose, evict_step
from embedding_pipeline.cache.groups import HOUR_MS, Uses
from embedding_pipeline.records import Digest, Space, digest_of
from embedding_pipeline.state import migrations, room
from embedding_pipeline.state.schema import cache_groups, vectors
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.stores import another

pytestmark = pytest.mark.anyio

WIDTH = 8
SIZE = OVERHEAD + 4 * WIDTH
OLD = Space("openai", "old", "", WIDTH)
NEW = Space("openai", "new", "", WIDTH)


def keys(entry: int, count: int) -> list[Digest]:
    return [digest_of(f"{entry}/{row}") for row in range(count)]


async def buy(store: Store, entry: int, count: int, hour: int, space: Space = OLD) -> int:
    """Store a group that was bought at this hour; returns the space's number."""

    def work(connection: Connection) -> int:
        number = database.space_id(connection, space)
        rows = np.ones((count, WIDTH), np.float32)
        paid, at = [entry] * count, hour * HOUR_MS + 5
        database.put_many(
            connection, number, space, keys(entry, count), rows, paid, dtype="float32", now_ms=at
        )
        return number

    return await store.write(work)


def left(connection: Connection) -> dict[int, int]:
    """Vectors by entry, as the tier has them; the groups must say the same."""
    query = select(vectors.c.entry_id, func.count()).group_by(vectors.c.entry_id)
    held = {int(entry): int(count) for entry, count in connection.execute(query)}
    c = cache_groups.c
    told = connection.execute(select(c.entry_id, c.entries, c.bytes)).all()
    assert {int(entry): int(count) for entry, count, _ in told} == held
    assert all(size == count * SIZE for _, count, size in told)
    return held


async def evict(store: Store, policy: Policy) -> list[Step]:
    steps = [Step(0, 0, 1, exhausted=False)]
    while not steps[-1].done:
        steps.append(await store.write(lambda c: evict_step(c, policy, step_bytes=10 * SIZE)))
    return steps[1:]


async def test_the_least_recently_used_goes_and_no_more_than_has_to(store: Store) -> None:
    for entry, hour in ((1, 30), (2, 10), (3, 20), (4, 10)):
        await buy(store, entry, 10, hour)
    steps = await evict(store, Policy(max_bytes=15 * SIZE))
    assert [step.entries for step in steps] == [10, 10, 10], "in steps of ten at most"
    assert await store.read(left) == {1: 10}


async def test_reading_keeps_a_group(store: Store) -> None:
    number = await buy(store, 1, 4, hour=1)
    await buy(store, 2, 4, hour=2)
    found = await store.read(lambda c: database.get_many(c, number, OLD, keys(1, 4)))
    uses = Uses()
    uses.note(found.entries)
    await store.write(lambda c: groups.mark_used(c, uses.take(3 * HOUR_MS), 3 * HOUR_MS))
    await evict(store, Policy(max_bytes=4 * SIZE))
    assert await store.read(left) == {1: 4}


async def test_spaces_that_are_kept_lose_nothing_however_far_above_the_bound(store: Store) -> None:
    number = await buy(store, 1, 4, hour=1)
    await buy(store, 2, 4, hour=2, space=NEW)
    steps = await evict(store, Policy(max_bytes=0, keep=[number]))
    assert steps[-1].exhausted
    assert steps[-1].surplus == 4 * SIZE
    assert await store.read(left) == {1: 4}


async def test_one_space_or_what_is_old_can_be_asked_for(store: Store) -> None:
    await buy(store, 1, 4, hour=1)
    number = await buy(store, 2, 4, hour=1, space=NEW)
    await buy(store, 3, 4, hour=9, space=NEW)
    await evict(store, Policy(only=number, before_ms=5 * HOUR_MS))
    assert await store.read(left) == {1: 4, 3: 4}


async def test_below_the_bound_nothing_goes(store: Store) -> None:
    await buy(store, 1, 4, hour=1)
    (step,) = await evict(store, Policy(max_bytes=4 * SIZE))
    assert step == Step(0, 0, 0, exhausted=False)


async def test_two_that_evict_at_once_stop_at_the_bound_together(store: Store) -> None:
    for entry in range(1, 31):
        await buy(store, entry, 10, hour=entry)
    policy = Policy(max_bytes=100 * SIZE)
    rival = another(store)
    with rival:
        worker = threading.Thread(target=_evict_here, args=(rival, policy))
        worker.start()
        await evict(store, policy)
        worker.join(600)
    assert sorted(await store.read(left)) == list(range(21, 31))


def _evict_here(store: Store, policy: Policy) -> None:
    while not store._transact(lambda c: evict_step(c, policy, step_bytes=10 * SIZE), True).done:
        pass


async def test_groups_follow_what_is_forgotten_and_what_was_there_already(store: Store) -> None:
    number = await buy(store, 1, 4, hour=1)
    await store.write(lambda c: database.forget(c, number, keys(1, 4)[:3]))
    assert await store.read(left) == {1: 1}
    rows = np.ones((4, WIDTH), np.float32)
    stored = await store.write(
        lambda c: database.put_many(
            c, number, OLD, keys(1, 4), rows, [7] * 4, dtype="float32", now_ms=0
        )
    )
    assert stored == 3, "the first stored vector stays"
    assert await store.read(left) == {1: 1, 7: 3}


async def test_a_store_from_before_groups_gets_them(store: Store) -> None:
    await buy(store, 1, 4, hour=1)
    number = await buy(store, 2, 3, hour=2, space=NEW)

    def back_and_forth(connection: Connection) -> None:
        cache_groups.drop(connection)
        for index in vectors.indexes:
            index.drop(connection)
        migrations._add_cache_groups(connection)

    await store.write(back_and_forth)
    assert await store.read(left) == {1: 4, 2: 3}
    await evict(store, Policy(only=number))
    assert await store.read(left) == {1: 4}


async def test_room_is_given_back_step_by_step(store: Store) -> None:
    for entry in range(1, 9):
        await buy(store, entry, 2000, hour=entry)
    before = await store.read(room.measure)
    await evict(store, Policy())
    assert await store.read(left) == {}
    free = await store.read(room.measure)
    if free.free_bytes is None:  # PostgreSQL's autovacuum does it
        assert not await store.write(room.give_back)
        return
    assert free.total_bytes == before.total_bytes, "the file keeps its size for the next rows"
    assert free.free_bytes > before.total_bytes // 2
    assert await store.write(lambda c: room.give_back(c, 1)), "a page at a time, if asked"
    assert not await store.write(room.give_back)
    after = await store.read(room.measure)
    assert after.free_bytes == 0
    assert after.total_bytes <= before.total_bytes - free.free_bytes


@given(st.lists(st.integers(1, 100), max_size=20), st.integers(0, 500), st.integers(1, 200))
def test_a_step_takes_a_prefix_that_is_just_enough(
    sizes: Sequence[int], surplus: int, step: int
) -> None:
    candidates = [Group(number, 1, size) for number, size in enumerate(sizes)]
    chosen = choose(candidates, surplus, step)
    assert chosen == candidates[: len(chosen)]
    taken, wanted = sum(group.bytes for group in chosen), min(surplus, step)
    assert taken >= min(wanted, sum(sizes))
    assert not chosen or taken - chosen[-1].bytes < wanted


def test_a_group_is_marked_once_an_hour() -> None:
    uses = Uses()
    uses.note([1, 2])
    uses.note([2, 3])
    assert uses.take(HOUR_MS) == [1, 2, 3]
    uses.note([1, 4])
    assert uses.take(2 * HOUR_MS - 1) == [4]
    assert uses.take(2 * HOUR_MS) == []
    uses.note([1])
    assert uses.take(2 * HOUR_MS + 1) == [1]
