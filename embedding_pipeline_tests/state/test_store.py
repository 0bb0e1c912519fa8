"""Transactions: all or nothing, whoever else writes, and clear words when the file refuses."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from embedding_pipeline.errors import ConfigurationError, StateError
from embedding_pipeline.state import sqlite as sqlite_module
from embedding_pipeline.state.schema import names
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.stores import open_store, url_in

pytestmark = pytest.mark.anyio


def put(name: str, then: Callable[[Connection], Any] = lambda _: None) -> Callable[..., Any]:
    """Work that writes a row and then does something else."""

    def work(connection: Connection) -> str:
        connection.execute(insert(names).values(space_id=1, name=name, digest=b"x" * 32))
        then(connection)
        return name

    return work


def boom(_: Connection) -> None:
    raise LookupError("on purpose")


def everything(connection: Connection) -> list[str]:
    return sorted(connection.scalars(select(names.c.name)))


async def _held(store: Store) -> tuple[asyncio.Task[bool], threading.Event]:
    """A write that has begun and goes on until the event: what comes now waits together."""
    begun, gate = threading.Event(), threading.Event()

    def work(_: Connection) -> bool:
        begun.set()
        return gate.wait(600)

    first = asyncio.create_task(store.write(work))
    assert await asyncio.to_thread(begun.wait, 600)
    return first, gate


async def test_what_is_written_is_there_for_every_store_on_the_file(
    store: Store, tmp_path: Path
) -> None:
    assert await store.write(put("a")) == "a"
    with open_store(tmp_path) as other:
        assert await other.read(everything) == ["a"]
        await other.write(put("b"))
    assert await store.read(everything) == ["a", "b"]


async def test_work_that_fails_leaves_nothing_and_its_error_is_its_own(store: Store) -> None:
    with pytest.raises(LookupError, match="on purpose"):
        await store.write(put("a", boom))
    assert await store.read(everything) == []


async def test_writes_that_wait_together_fail_apart(store: Store) -> None:
    first, gate = await _held(store)
    works = [put("a"), put("b", boom), put("c"), put("a"), put("d")]
    rest = [asyncio.create_task(store.write(work)) for work in works]
    await asyncio.sleep(0)
    gate.set()
    ends = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [end for end in ends if isinstance(end, str)] == ["a", "c", "d"]
    assert isinstance(ends[2], LookupError)
    assert isinstance(ends[4], StateError), "the key is taken"
    assert await store.read(everything) == ["a", "c", "d"]


async def test_a_full_disk_fails_those_that_share_the_commit_and_keeps_nothing_of_them(
    store: Store,
) -> None:
    await store.write(put("before"))
    await store.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 40"))
    first, gate = await _held(store)
    big = "x" * 10_000_000
    rest = [asyncio.create_task(store.write(put(name))) for name in ("a", big, "c")]
    await asyncio.sleep(0)
    gate.set()
    ends = await asyncio.gather(first, *rest, return_exceptions=True)
    assert all(isinstance(end, StateError) for end in ends[1:])
    assert "the disk is full; free space" in str(ends[3])
    assert await store.read(everything) == ["before"]
    await store.write(put("after"))
    assert await store.read(everything) == ["after", "before"]


async def test_a_write_cancelled_while_it_waits_is_not_done(store: Store) -> None:
    first, gate = await _held(store)
    waiting = asyncio.create_task(store.write(put("a")))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await first
    assert await store.read(everything) == []


async def test_many_writers_on_one_file_lose_nothing(tmp_path: Path) -> None:
    stores = [open_store(tmp_path) for _ in range(3)]
    await asyncio.gather(
        *(store.write(put(f"{i}/{n}")) for i, store in enumerate(stores) for n in range(40))
    )
    assert len(await stores[0].read(everything)) == 120
    for store in stores:
        store.close()


async def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    for call in (store.write, store.read):
        with pytest.raises(StateError, match="it is closed; open a new one"):
            await call(everything)


async def test_closing_finishes_what_is_queued(store: Store, tmp_path: Path) -> None:
    writes = [asyncio.ensure_future(store.write(put(str(n)))) for n in range(30)]
    await asyncio.sleep(0)
    await asyncio.to_thread(store.close)
    await asyncio.gather(*writes)
    with open_store(tmp_path) as other:
        assert len(await other.read(everything)) == 30


async def test_a_lock_that_is_not_given_back_is_an_error_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.05)
    with open_store(tmp_path) as store:
        holder = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="locked by another process"):
            await store.write(put("a"))
        assert await store.read(everything) == [], "readers are not held up"
        holder.close()
        await store.write(put("a"))


def test_who_finds_a_new_file_in_use_waits_for_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that open a new file at once: one changes its log, and may be refused."""
    with sqlite3.connect(tmp_path / "state.db", isolation_level=None) as other:
        other.execute("CREATE TABLE anything (x)")
        other.execute("BEGIN IMMEDIATE")
        refused, make = [], sqlite_module._make

        def watched(connection: sqlite3.Connection) -> None:
            try:
                make(connection)
            except sqlite3.OperationalError as error:
                refused.append(error.sqlite_errorname)
                if len(refused) == 2:
                    other.execute("COMMIT")
                raise

        monkeypatch.setattr(sqlite_module, "_make", watched)
        with open_store(tmp_path) as store:
            assert store.ask(lambda c: c.exec_driver_sql("PRAGMA journal_mode").scalar()) == "wal"
            assert store.ask(everything) == []
    assert refused == ["SQLITE_BUSY", "SQLITE_BUSY"]
    other.close()


async def test_a_file_that_may_not_be_written_says_what_to_do(store: Store) -> None:
    await store.write(lambda c: c.exec_driver_sql("PRAGMA query_only = ON"))
    with pytest.raises(StateError, match="read-only; give write permission"):
        await store.write(put("a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_folder_without_permission_says_what_to_do(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StateError, match="cannot be opened; check that its folder"):
        open_store(tmp_path)


def test_a_folder_in_place_of_the_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StateError, match="cannot be opened; check that its folder exists"):
        open_store(tmp_path)


def test_a_file_in_place_of_the_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("not a folder")
    with pytest.raises(StateError, match="cannot create"):
        open_store(tmp_path / "folder")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("hello, I am a text file of some length" * 100)
    with pytest.raises(StateError, match="not a database; point state_url elsewhere"):
        open_store(tmp_path)


async def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        for n in range(2000):
            await store.write(put(f"{n:0200d}"))
    file = tmp_path / "state.db"
    content = bytearray(file.read_bytes())
    content[32768:] = b"\xff" * len(content[32768:])
    file.write_bytes(content)
    damaged = pytest.raises(StateError, match="the file is damaged; restore a backup")
    with damaged, open_store(tmp_path) as store:
        await store.read(everything)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("not a url", "write it like sqlite:///path/to/state.db"),
        ("sqlite://", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("mysql://user:secret@host/db", "mysql is not supported"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        Store(url, FakeClock())
    assert "secret" not in str(caught.value)


async def test_no_value_that_is_stored_gets_into_an_error(store: Store) -> None:
    await store.write(put("a secret name"))
    with pytest.raises(StateError) as caught:
        await store.write(put("a secret name"))
    error: BaseException | None = caught.value
    while error is not None:
        assert "a secret name" not in str(error)
        error = error.__cause__ or error.__context__


def test_the_folder_is_made(tmp_path: Path) -> None:
    with open_store(tmp_path / "a" / "b") as store:
        assert store.where == url_in(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "state.db").is_file()
