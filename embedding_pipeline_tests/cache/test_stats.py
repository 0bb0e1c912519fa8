"""What each tier had and had not, summed over days, spaces, projects and processes."""

import numpy as np
import pytest

from embedding_pipeline.cache import database, stats
from embedding_pipeline.cache.stats import DAY_MS, Asked, Tally, TierUse
from embedding_pipeline.records import Space
from embedding_pipeline.state.store import Store

pytestmark = pytest.mark.anyio

SPACE, OTHER = Space("openai", "model", "", 4), Space("openai", "other", "", 4)


def test_hits_and_misses_are_counted_for_the_project_of_each_key() -> None:
    tally = Tally()
    tally.count("redis", ["a", "b", "a", "a"], np.array([True, True, False, True]))
    tally.count("database", ["a"], np.array([False]), damaged=1)
    tally.count("database", ["b", "b"], np.array([True, True]))
    assert tally.take() == {
        ("a", "redis"): Asked(2, 1),
        ("b", "redis"): Asked(1, 0),
        ("a", "database"): Asked(0, 1, damaged=1),
        ("b", "database"): Asked(2, 0),
    }
    assert tally.take() == {}


def test_what_could_not_be_written_is_added_to_what_came_since() -> None:
    tally = Tally()
    tally.add("memory", "a", Asked(hits=3))
    taken = tally.take()
    tally.add("memory", "a", Asked(misses=1))
    tally.give_back(taken)
    assert tally.take() == {("a", "memory"): Asked(3, 1)}


async def test_counts_of_many_processes_add_up_by_space_project_and_tier(store: Store) -> None:
    first = await store.write(lambda c: database.space_id(c, SPACE))
    second = await store.write(lambda c: database.space_id(c, OTHER))
    counts = {("a", "redis"): Asked(3, 1), ("b", "database"): Asked(0, 2, damaged=1)}
    for _ in range(2):
        await store.write(lambda c: stats.add(c, first, counts, DAY_MS))
    await store.write(lambda c: stats.add(c, second, {("a", "redis"): Asked(1, 0)}, 3 * DAY_MS))
    await store.write(lambda c: stats.add(c, first, {("a", "redis"): Asked(1, 1)}, 3 * DAY_MS))
    assert await store.read(stats.usage) == [
        TierUse(str(SPACE), "a", "redis", 7, 3, 0),
        TierUse(str(SPACE), "b", "database", 0, 4, 2),
        TierUse(str(OTHER), "a", "redis", 1, 0, 0),
    ]
    recent = await store.read(lambda c: stats.usage(c, since_ms=3 * DAY_MS + 5))
    assert recent == [
        TierUse(str(SPACE), "a", "redis", 1, 1, 0),
        TierUse(str(OTHER), "a", "redis", 1, 0, 0),
    ]
    assert [use.hit_ratio for use in recent] == [0.5, 1.0]
    assert TierUse("s", "p", "t", 0, 0, 0).hit_ratio == 0.0
