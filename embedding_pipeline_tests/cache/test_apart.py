"""Vectors in files: found again whatever happens to the files, and gone with their group."""

import asyncio
import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from embedding_pipeline.cache import apart, database, groups
from embedding_pipeline.cache.codec import OVERHEAD
from embedding_pipeline.cache.durable import DurableTier
from embedding_pipeline.cache.eviction import Policy
from embedding_pipeline.cache.tier import Lookup
from embedding_pipeline.cache.upkeep import evict, sweep, verify
from embedding_pipeline.errors import StateError
from embedding_pipeline.records import Digest, Space, Vectors, digest_of
from embedding_pipeline.state import beside, room
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.stores import another, open_store

pytestmark = pytest.mark.anyio

WIDTH = 8
SPACE = Space("openai", "model", "", WIDTH)
KEYS = [digest_of(str(n)) for n in range(600)]
FILES = "state.db-vectors"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store on SQLite, where also the smallest group has a file."""
    monkeypatch.setattr(apart, "LEAST_BYTES", 0)
    with open_store(tmp_path) as opened:
        yield opened


def rows(count: int, width: int = WIDTH, seed: int = 0) -> Vectors:
    made = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def storing(
    digests: Sequence[Digest], vectors: Vectors, paid: Sequence[int], dtype: str = "float32"
) -> Callable[[Connection], int]:
    space = Space("openai", "model", "", vectors.shape[1])

    def work(connection: Connection) -> int:
        number = database.space_id(connection, space)
        return database.put_many(connection, number, space, digests, vectors, paid, dtype=dtype)

    return work


async def get(store: Store, digests: Sequence[Digest]) -> Lookup:
    return await store.read(lambda c: database.get_many(c, 1, SPACE, digests))


def files_of(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in (folder / FILES).glob("*/*"))


@settings(max_examples=12)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    dtype=st.sampled_from(["float32", "float16"]),
    order=st.randoms(use_true_random=False),
)
async def test_vectors_of_several_payers_come_back_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], dtype: str, order: object
) -> None:
    paid = [entry for entry, size in enumerate(sizes, start=1) for _ in range(size)]
    order.shuffle(paid)  # type: ignore[attr-defined]
    keys, vectors = KEYS[: len(paid)], rows(len(paid)).astype(dtype).astype(np.float32)
    asked = list(range(len(paid)))
    order.shuffle(asked)  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch, open_store(tmp_path_factory.mktemp("s")) as store:
        patch.setattr(apart, "LEAST_BYTES", 5 * 4 * WIDTH)  # smaller groups stay in rows
        assert await store.write(storing(keys, vectors, paid, dtype)) == len(keys)
        found = await get(store, [keys[n] for n in asked])
        assert found.found.all()
        assert (found.vectors == vectors[asked]).all()
        held = await store.read(groups.by_space)
        await store.write(lambda c: groups.recount(c, paid))
        assert await store.read(groups.by_space) == held, "counted when stored as when recounted"


async def test_a_group_has_one_file_that_goes_with_it(store: Store, tmp_path: Path) -> None:
    paid = [1, 2] * 20
    await store.write(storing(KEYS[:40], rows(40), paid))
    assert files_of(tmp_path) == [1, 2]
    before = await store.read(room.measure)
    await store.write(lambda c: groups.mark_used(c, [2], 9 * groups.HOUR_MS))
    done = await evict(store, Policy(max_bytes=20 * (OVERHEAD + 8 + 4 * WIDTH)))
    assert (done.entries, done.surplus) == (20, 0)
    assert files_of(tmp_path) == [2]
    assert done.returned_bytes >= 20 * 4 * WIDTH
    assert (await store.read(room.measure)).total_bytes == before.total_bytes - done.returned_bytes
    found = await get(store, KEYS[:40])
    assert found.found.tolist() == [False, True] * 20
    assert found.damaged == ()


async def test_what_was_taken_back_is_swept_and_does_no_harm(store: Store, tmp_path: Path) -> None:
    def broken(connection: Connection) -> None:
        storing(KEYS[:5], rows(5, seed=3), [1] * 5)(connection)
        storing(KEYS[5:9], rows(4), [1001] * 4)(connection)
        raise ValueError("taken back")

    with pytest.raises(ValueError, match="taken back"):
        await store.write(broken)
    assert not (await get(store, KEYS[:9])).found.any()
    await store.write(storing(KEYS[:5], rows(5), [1] * 5))  # the entry's number is given again
    await sweep(store)
    assert files_of(tmp_path) == [1]
    assert sorted(path.name for path in (tmp_path / FILES).iterdir()) == ["0"]
    assert ((await get(store, KEYS[:5])).vectors == rows(5)).all()


def _killed_before_the_commit(folder: Path) -> None:
    def work(connection: Connection) -> None:
        storing(KEYS[:300], rows(300, 1536), [7] * 300)(connection)
        os.kill(os.getpid(), signal.SIGKILL)

    store = open_store(folder)
    asyncio.run(store.write(work))


async def test_a_process_killed_before_its_commit_leaves_bytes_that_are_reclaimed(
    tmp_path: Path,
) -> None:
    child = multiprocessing.get_context("spawn").Process(
        target=_killed_before_the_commit, args=(tmp_path,)
    )
    child.start()
    await asyncio.to_thread(child.join, 600)
    assert child.exitcode == -signal.SIGKILL
    assert (tmp_path / FILES / "0" / "7").stat().st_size == 300 * 4 * 1536
    with open_store(tmp_path) as store:
        assert await store.read(groups.by_space) == []
        await sweep(store)
        assert files_of(tmp_path) == []


async def test_a_file_that_is_being_written_is_not_swept(store: Store, tmp_path: Path) -> None:
    written, swept = threading.Event(), threading.Event()

    def slowly(connection: Connection) -> None:
        storing(KEYS[:5], rows(5), [1] * 5)(connection)
        written.set()
        assert swept.wait(600)

    with another(store) as other:
        writing = asyncio.create_task(store.write(slowly))
        assert await asyncio.to_thread(written.wait, 600)
        assert await other.read(lambda c: apart.unused(c, range(1000))) == [1], "as it looks now"
        sweeping = asyncio.create_task(sweep(other))
        swept.set()
        await asyncio.gather(writing, sweeping)
    assert (await get(store, KEYS[:5])).found.all()


@pytest.mark.parametrize("left", [None, 0, 1, 3 * 4 * WIDTH, 3 * 4 * WIDTH + 1])
async def test_a_lost_or_cut_file_is_damage_that_is_repaired(
    store: Store, tmp_path: Path, left: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    await store.write(storing(KEYS[:5], rows(5), [1] * 5))
    path = tmp_path / FILES / "0" / "1"
    if left is None:
        path.unlink()
    else:
        os.truncate(path, left)
    whole = (left or 0) // (4 * WIDTH)
    tier = DurableTier(store, 1, SPACE)
    found = await tier.get_many(KEYS[:5])
    assert found.found.tolist() == [n < whole for n in range(5)]
    assert not found.vectors[whole:].any()
    assert set(found.damaged) == set(KEYS[whole:5])
    assert f"{5 - whole} damaged cache entries removed" in caplog.text
    assert await store.write(storing(KEYS[:5], rows(5), [2] * 5)) == 5 - whole
    again = await tier.get_many(KEYS[:5])
    assert again.found.all()
    assert (again.vectors == rows(5)).all()
    assert (await verify(store, SPACE, 1)).bad == 0


async def test_a_file_that_cannot_be_read_stops_instead_of_buying_again(
    store: Store, tmp_path: Path
) -> None:
    await store.write(storing(KEYS[:5], rows(5), [1] * 5))
    path = tmp_path / FILES / "0" / "1"
    path.rename(tmp_path / "kept")
    path.mkdir()
    with pytest.raises(StateError, match=r"state\.db-vectors/0/1: .*directory"):
        await DurableTier(store, 1, SPACE).get_many(KEYS[:5])
    path.rmdir()
    (tmp_path / "kept").rename(path)
    assert (await get(store, KEYS[:5])).found.all()


@pytest.mark.parametrize(
    ("code", "says"), [(errno.ENOSPC, "the disk is full; free space"), (errno.EROFS, "permission")]
)
async def test_a_disk_that_takes_nothing_keeps_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, says: str
) -> None:
    def half(descriptor: int, data: memoryview) -> None:
        os.write(descriptor, data[: len(data) // 2])
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(beside, "_write", half)
        with pytest.raises(StateError, match=says):
            await store.write(storing(KEYS[:5], rows(5), [1] * 5))
    assert not (await get(store, KEYS[:5])).found.any()
    await store.write(storing(KEYS[:5], rows(5), [1] * 5))
    assert ((await get(store, KEYS[:5])).vectors == rows(5)).all()


async def test_bytes_are_on_the_disk_every_8_mb_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(beside, "_sync", lambda path: synced.append(path.name))
    with open_store(tmp_path) as store:
        for entry in range(1, 6):
            keys = KEYS[entry * 60 : entry * 60 + 60]
            await store.write(storing(keys, rows(60, 8192), [entry] * 60))
            assert synced == (["1", "2", "3", "4", "5", "0"] if entry > 4 else [])
        await store.write(storing(KEYS[:60], rows(60, 8192), [6] * 60))
        del synced[:]
    assert synced == ["6", "0"]


async def test_vectors_from_before_files_are_read_beside_those_in_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(apart, "LEAST_BYTES", 1 << 30)
        await store.write(storing(KEYS[:5], rows(10)[:5], [1] * 5))
    await store.write(storing(KEYS[5:10], rows(10)[5:], [2] * 5))
    found = await get(store, KEYS[:10])
    assert found.found.all()
    assert (found.vectors == rows(10)).all()


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2)])
async def test_a_store_is_little_more_than_its_vectors(
    tmp_path: Path, dtype: str, size: int
) -> None:
    """Stored as runs do: 250 at a time, keys at random."""
    with open_store(tmp_path) as store:
        empty = await store.read(room.measure)
        for start in range(0, 2000, 250):
            keys = [digest_of(str(n)) for n in range(start, start + 250)]
            await store.write(storing(keys, rows(250, 1536, start), [start + 1] * 250, dtype))
        full = await store.read(room.measure)
    assert sum(path.stat().st_size for path in (tmp_path / FILES).glob("*/*")) == 3072000 * size
    assert full.total_bytes - empty.total_bytes <= 1.1 * 3072000 * size
