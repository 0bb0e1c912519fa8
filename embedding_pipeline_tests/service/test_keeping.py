"""The bound while a service lives: held at its end, with a warning where it cannot be held."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import func, select

from embedding_pipeline.cache.codec import OVERHEAD
from embedding_pipeline.records import Space
from embedding_pipeline.service.keeping import Bound
from embedding_pipeline.spaces import history
from embedding_pipeline.spaces.records import Target
from embedding_pipeline.state import owners
from embedding_pipeline.state.schema import cache_groups, vectors
from embedding_pipeline_tests.service.harness import (
    SPACE,
    SPEC,
    WIDTH,
    HandClock,
    Provider,
    open_service,
)
from embedding_pipeline_tests.stores import open_store

pytestmark = pytest.mark.anyio

SIZE = OVERHEAD + 4 * WIDTH


async def stored(folder: Path) -> int:
    with open_store(folder) as store:
        return int(await store.read(lambda c: c.scalar(select(func.count()).select_from(vectors))))


async def test_a_service_leaves_the_tier_within_its_bound(tmp_path: Path) -> None:
    clock, provider = HandClock(through=1.0), Provider()
    bound = Bound(8 * SIZE, evict_active=True)
    async with open_service(tmp_path, provider, clock, bound=bound) as service:
        await service.embed_many([f"text {n}" for n in range(16)])
    assert await stored(tmp_path) == 8


async def test_the_space_in_use_is_kept_and_the_bound_said_to_be_too_small(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, provider = HandClock(through=1.0), Provider()
    async with open_service(tmp_path, provider, clock, bound=Bound(SIZE)) as service:
        await service.embed_many(["one", "two"])
    assert await stored(tmp_path) == 2
    assert "over cache.max_gb" in caplog.text


async def test_the_active_space_is_kept_by_a_service_of_another_one(tmp_path: Path) -> None:
    clock, provider = HandClock(through=1.0), Provider()
    async with open_service(tmp_path, provider, clock) as service:
        await service.embed_many(["one", "two"])
        target = Target("fake/hash", SPACE, WIDTH)
        await service.store.write(lambda c: history.adopt(c, target, 0))
    other = replace(SPEC, space=Space("fake", "other", "", WIDTH))
    provider.space = other.space
    async with open_service(tmp_path, provider, clock, spec=other, bound=Bound(SIZE)):
        pass
    assert await stored(tmp_path) == 2


async def test_what_was_read_is_marked_with_the_next_beat(tmp_path: Path) -> None:
    clock, provider = HandClock(through=1.0), Provider()
    async with open_service(tmp_path, provider, clock) as service:
        await service.embed_many(["one"])
    clock.advance(7200)
    async with open_service(tmp_path, provider, clock) as service:
        await service.embed_many(["one"])
        used = select(func.max(cache_groups.c.used_at))
        before = await service.store.read(lambda c: c.scalar(used))
        await clock.slept()
        clock.advance(owners.RENEW_SECONDS)
        after = before
        async with asyncio.timeout(60):
            while after == before:
                after = await service.store.read(lambda c: c.scalar(used))
    assert after >= before + 7_200_000
    assert len(provider.calls) == 1
