"""One contract for every tier, and for all of them on top of each other."""

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import numpy as np
import pytest

from embedding_pipeline.cache import apart
from embedding_pipeline.records import Space, Vectors, digest_of
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.cache.tiers import CODED, KINDS, Stacked, Subject, opened
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.stores import url_in

pytestmark = pytest.mark.anyio

WIDTH = 8
SPACE, OTHER = Space("openai", "model", "", WIDTH), Space("openai", "other", "", WIDTH)
REAL = Space("openai", "text-embedding-3-small", "", 1536)
KEYS = [digest_of(str(n)) for n in range(1100)]

Open = Callable[[Space, str], AbstractAsyncContextManager[Subject]]


def rows(count: int, width: int = WIDTH, seed: int = 0) -> Vectors:
    made = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def open_tier(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """Opens a tier of the kind for a space; all on the same server, file or database."""
    if kind == "files":
        monkeypatch.setattr(apart, "LEAST_BYTES", 0)  # also the smallest group has a file
    if kind in ("memory", "redis"):
        yield lambda space, dtype: opened(kind, request, None, space, dtype)
        return
    url = request.getfixturevalue("postgres_url") if "postgres" in kind else url_in(tmp_path)
    with Store(url, FakeClock()) as store:
        yield lambda space, dtype: opened(kind, request, store, space, dtype)


@pytest.fixture
async def tier(open_tier: Open) -> AsyncIterator[Subject]:
    async with open_tier(SPACE, "float32") as subject:
        yield subject


async def test_what_was_put_comes_back_bit_by_bit_each_at_its_place(tier: Subject) -> None:
    vectors = rows(len(KEYS))
    vectors[0] = [-0.0, 1e-45, -1e-45, 3.4e38, 0.1, np.nextafter(1, 0), -1, 1]
    await tier.put(KEYS[::2], vectors[::2])
    found = await tier.get(KEYS)
    assert found.found.tolist() == [n % 2 == 0 for n in range(len(KEYS))]
    assert found.vectors[::2].tobytes() == vectors[::2].tobytes()
    assert not found.vectors[1::2].any(), "rows not found are zero"
    assert found.damaged == ()


async def test_a_key_asked_for_several_times_is_answered_every_time(tier: Subject) -> None:
    vectors = rows(2)
    await tier.put(KEYS[:2], vectors)
    found = await tier.get([KEYS[1], KEYS[9], KEYS[1], KEYS[0], KEYS[9], KEYS[1]])
    assert found.found.tolist() == [True, False, True, True, False, True]
    assert (found.vectors[[0, 2, 3, 5]] == vectors[[1, 1, 0, 1]]).all()


async def test_nothing_asked_is_nothing_found_and_nothing_put_is_nothing(tier: Subject) -> None:
    await tier.put([], rows(0))
    found = await tier.get([])
    assert (found.vectors.shape, found.found.shape) == ((0, WIDTH), (0,))


async def test_two_spaces_do_not_know_each_others_vectors(open_tier: Open) -> None:
    async with open_tier(SPACE, "float32") as one, open_tier(OTHER, "float32") as other:
        await one.put(KEYS[:2], rows(2))
        assert not (await other.get(KEYS[:2])).found.any()
        await other.put(KEYS[:1], rows(1, seed=5))
        assert ((await one.get(KEYS[:1])).vectors == rows(2)[:1]).all()


async def test_what_it_hands_out_may_be_changed_without_changing_it(tier: Subject) -> None:
    await tier.put(KEYS[:2], rows(2))
    (await tier.get(KEYS[:2])).vectors[:] = 7
    assert ((await tier.get(KEYS[:2])).vectors == rows(2)).all()


@pytest.mark.parametrize("kind", CODED, indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
async def test_no_flipped_bit_brings_another_vector(open_tier: Open, dtype: str) -> None:
    """Every bit of a small value, and of the header; then the next write repairs it."""
    async with open_tier(SPACE, dtype) as tier:
        dice, vectors = random.Random(7), rows(1100)
        await tier.put(KEYS, vectors)
        whole = (await tier.get(KEYS)).vectors
        values = await tier.values(KEYS)
        bits = [n % (8 * len(values[0])) for n in range(len(KEYS))]
        dice.shuffle(bits)
        await tier.overwrite(KEYS, list(map(_flipped, values, bits)))
        found = await tier.get(KEYS)
        assert not found.found.any()
        assert not found.vectors.any(), "nothing of a damaged entry is handed out"
        assert set(found.damaged) == set(KEYS)
        await tier.put(KEYS, vectors)
        again = await tier.get(KEYS)
        assert again.found.all()
        assert (again.vectors == whole).all()


def _flipped(value: bytes, bit: int) -> bytes:
    damaged = bytearray(value)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.mark.parametrize("kind", ["stack on sqlite", "stack on postgres"], indirect=True)
@pytest.mark.parametrize("where", ["redis", "durable"])
async def test_a_tier_that_is_damaged_alone_costs_nothing(tier: Subject, where: str) -> None:
    """The other one answers; and what Redis had is put right."""
    assert isinstance(tier, Stacked)
    await tier.put(KEYS[:3], rows(3))
    values = await tier.values(KEYS[:3])
    broken = tier.redis if where == "redis" else tier.durable
    await broken.overwrite(KEYS[:3], [_flipped(value, 99) for value in values])
    found = await tier.get(KEYS[:3])
    assert found.found.all()
    assert (found.vectors == rows(3)).all()
    assert await tier.redis.values(KEYS[:3]) == values


@pytest.mark.parametrize("kind", CODED, indirect=True)
async def test_values_that_changed_places_are_not_served(tier: Subject) -> None:
    await tier.put(KEYS[:3], rows(3))
    first, second, third = await tier.values(KEYS[:3])
    await tier.overwrite(KEYS[:3], [second, first, third])
    assert (await tier.get(KEYS[:3])).found.tolist() == [False, False, True]


@pytest.mark.parametrize("kind", CODED, indirect=True)
@pytest.mark.parametrize(("dtype", "most"), [("float32", 6250), ("float16", 3180)])
async def test_a_value_of_1536_dimensions_is_small(open_tier: Open, dtype: str, most: int) -> None:
    async with open_tier(REAL, dtype) as tier:
        vectors = rows(50, 1536)
        await tier.put(KEYS[:50], vectors)
        assert {len(value) <= most for value in await tier.values(KEYS[:50])} == {True}
        found = await tier.get(KEYS[:50])
        assert found.found.all()
        error = 0.0 if dtype == "float32" else 2.0**-11
        assert (np.abs(found.vectors - vectors) <= error * np.abs(vectors) + 2.0**-25).all()
