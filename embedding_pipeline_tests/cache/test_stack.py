"""The nearest tier is asked first, the durable one decides, and what was found fills upward."""

from collections.abc import Iterable

import numpy as np
import pytest

from embedding_pipeline.cache import database, upkeep
from embedding_pipeline.cache.durable import DurableTier
from embedding_pipeline.cache.memory import MemoryTier
from embedding_pipeline.cache.stack import Answer, Stack
from embedding_pipeline.records import Digest, Space, Vectors, digest_of
from embedding_pipeline.state.store import Store

pytestmark = pytest.mark.anyio

WIDTH = 4
SPACE = Space("openai", "model", "", WIDTH)
KEYS = [digest_of(str(n)) for n in range(9)]


def row(key: int, tier: int) -> Vectors:
    """A vector that says whose it is."""
    return np.array([[key, tier, 1, 1]], np.float32)


class Tiers:
    """Two near tiers over a durable one; what each holds says which tier it is from."""

    def __init__(self, store: Store, number: int) -> None:
        self.store, self.number = store, number
        self.near = [MemoryTier(1 << 20, WIDTH), MemoryTier(1 << 20, WIDTH)]
        self.stack = Stack(self.near, DurableTier(store, number, SPACE))

    async def hold(self, tier: int, keys: Iterable[int]) -> None:
        listed = list(keys)
        if not listed:
            return
        digests = [KEYS[key] for key in listed]
        vectors = np.concatenate([row(key, tier) for key in listed])
        if tier < len(self.near):
            self.near[tier].put(digests, vectors)
            return
        paid = [1] * len(digests)
        await self.store.write(
            lambda c: database.put_many(
                c, self.number, SPACE, digests, vectors, paid, dtype="float32"
            )
        )

    def held_near(self, tier: int) -> set[int]:
        return {n for n, key in enumerate(KEYS) if self.near[tier].get(key) is not None}


async def tiers(store: Store) -> Tiers:
    return Tiers(store, await store.write(lambda c: database.space_id(c, SPACE)))


def shown(answers: Iterable[Answer]) -> list[tuple[str, list[int], list[bool]]]:
    return [(a.tier, a.positions.tolist(), a.found.tolist()) for a in answers]


async def test_the_nearest_that_has_a_key_answers_and_the_farther_are_not_asked(
    store: Store,
) -> None:
    tested = await tiers(store)
    for tier, keys in enumerate(([0], [0, 1], [0, 1, 2])):
        await tested.hold(tier, keys)
    found, answers = await tested.stack.get_many([KEYS[n] for n in (3, 2, 1, 0)])
    assert found.found.tolist() == [False, True, True, True]
    assert found.vectors[:, 1].tolist() == [0, 2, 1, 0]
    assert shown(answers) == [
        ("memory", [0, 1, 2, 3], [False, False, False, True]),
        ("memory", [0, 1, 2], [False, False, True]),
        ("database", [0, 1], [False, True]),
    ]


async def test_what_a_farther_tier_had_the_nearer_have_from_then_on(store: Store) -> None:
    tested = await tiers(store)
    await tested.hold(1, [1])
    await tested.hold(2, [0, 1, 2])
    await tested.stack.get_many(KEYS[:3])
    assert (tested.held_near(0), tested.held_near(1)) == ({0, 1, 2}, {0, 1, 2})
    found, answers = await tested.stack.get_many(KEYS[:3])
    assert found.found.all()
    assert answers[0].found.all()


async def test_what_the_durable_tier_does_not_know_is_served_by_nobody(store: Store) -> None:
    """It was evicted, purged, or is of a store that was thrown away: not in the books."""
    tested = await tiers(store)
    await tested.hold(0, [0, 1])
    await tested.hold(2, [1])
    found, answers = await tested.stack.get_many([KEYS[0], KEYS[1], KEYS[0]])
    assert found.found.tolist() == [False, True, False]
    assert not found.vectors[[0, 2]].any()
    assert shown(answers) == [
        ("memory", [0, 1, 2], [False, True, False]),
        ("database", [0, 2], [False, False]),
    ]


async def test_after_a_purge_what_others_hold_is_never_served_again(store: Store) -> None:
    """Not even when another vector is stored under its key, say after a wrong import."""
    tested = await tiers(store)
    identity = await store.read(database.store_identity)
    stack = Stack(tested.near, DurableTier(store, tested.number, SPACE, identity=identity))
    await tested.hold(0, [0])
    await tested.hold(2, [0, 1])
    assert (await stack.get_many(KEYS[:2]))[0].vectors[:, 1].tolist() == [0, 2]
    await upkeep.purge(store, tested.number)
    assert not (await stack.get_many(KEYS[2:3]))[0].found.any()
    await tested.hold(2, [0])
    found, answers = await stack.get_many(KEYS[:2])
    assert found.found.tolist() == [True, False]
    assert found.vectors[0, 1] == 2, "the one stored after the purge"
    assert [answer.tier for answer in answers] == ["database"]
    assert await store.read(database.store_identity) != identity


async def test_new_vectors_are_told_to_every_near_tier(store: Store) -> None:
    tested = await tiers(store)
    await tested.stack.put_many(KEYS[:2], np.concatenate([row(0, 9), row(1, 9)]))
    assert (tested.held_near(0), tested.held_near(1)) == ({0, 1}, {0, 1})


async def test_without_near_tiers_the_durable_one_answers_alone(store: Store) -> None:
    tested = await tiers(store)
    await tested.hold(2, [1])
    found, answers = await Stack((), DurableTier(store, tested.number, SPACE)).get_many(KEYS[:2])
    assert found.found.tolist() == [False, True]
    assert shown(answers) == [("database", [0, 1], [False, True])]


@pytest.mark.parametrize("seed", range(12))
async def test_whoever_holds_what_a_key_is_found_where_the_durable_tier_has_it(
    seed: int, store: Store
) -> None:
    dice = np.random.default_rng(seed)
    tested = await tiers(store)
    held = [set(np.flatnonzero(dice.random(9) < 0.5).tolist()) for _ in range(3)]
    for tier, wanted in enumerate(held):
        await tested.hold(tier, wanted)
    asked: list[Digest] = [KEYS[n] for n in dice.integers(0, 9, 12)]
    found, answers = await tested.stack.get_many(asked)
    for position, digest in enumerate(asked):
        key = KEYS.index(digest)
        assert found.found[position] == (key in held[2])
        expected = row(key, min(t for t in range(3) if key in held[t])) if key in held[2] else 0
        assert (found.vectors[position] == expected).all()
    assert sum(int(answer.found.sum()) for answer in answers) == int(found.found.sum())
