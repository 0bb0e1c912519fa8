"""The store on a real PostgreSQL server: what SQLite's tests say, where it could differ."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select, text

from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.errors import StateError, StateInterrupted, StateUnreachable
from embedding_pipeline.records import Account
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.state.schema import schema_version, spaces
from embedding_pipeline.state.store import PATIENCE_SECONDS, PAUSES, Store
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI, listening
from embedding_pipeline_tests.servers import (
    postgres_in,
    postgres_server,
    postgres_url,
    server_folder,
)

__all__ = ["postgres_server", "postgres_url"]

pytestmark = pytest.mark.anyio


@pytest.fixture
def store(postgres_url: str) -> Iterator[Store]:
    with Store(postgres_url, FakeClock()) as opened:
        yield opened


def _another(store: Store) -> Store:
    return Store(store.url, FakeClock())


async def test_plain_urls_mean_psycopg_3(postgres_url: str) -> None:
    for scheme in ("postgresql", "postgresql+psycopg2"):
        with Store(postgres_url.replace("postgresql+psycopg", scheme), FakeClock()) as store:
            assert await store.read(lambda c: c.dialect.driver) == "psycopg"


async def test_read_then_write_of_many_stores_loses_nothing(store: Store) -> None:
    def count(connection: Connection) -> None:
        seen = connection.scalar(select(func.count()).select_from(spaces))
        connection.execute(insert(spaces).values(name=str(seen)))

    others = [_another(store) for _ in range(3)]
    try:
        await asyncio.gather(*(other.write(count) for other in [store, *others] for _ in range(20)))
        names = await store.read(lambda c: c.scalars(select(spaces.c.name)).all())
    finally:
        for other in others:
            other.close()
    assert sorted(map(int, names)) == list(range(80))


async def test_stores_that_open_at_once_migrate_once(postgres_url: str) -> None:
    opened = await asyncio.gather(
        *(asyncio.to_thread(Store, postgres_url, FakeClock()) for _ in range(4))
    )
    versions = await opened[0].read(lambda c: c.scalars(select(schema_version.c.version)).all())
    for store in opened:
        store.close()
    assert sorted(versions) == list(range(1, len(versions) + 1))


async def test_a_reader_sees_one_snapshot(store: Store) -> None:
    seen = asyncio.Event()
    loop = asyncio.get_running_loop()

    def look(connection: Connection) -> tuple[int, int]:
        before = connection.scalar(select(func.count()).select_from(spaces)) or 0
        loop.call_soon_threadsafe(seen.set)
        asyncio.run_coroutine_threadsafe(written.wait(), loop).result(600)
        return before, connection.scalar(select(func.count()).select_from(spaces)) or 0

    written = asyncio.Event()
    reading = asyncio.create_task(store.read(look))
    await seen.wait()
    await store.write(lambda c: c.execute(insert(spaces).values(name="new")))
    written.set()
    assert await reading == (0, 0)


async def test_a_piece_of_work_that_fails_takes_only_itself_back(store: Store) -> None:
    def fine(connection: Connection) -> None:
        connection.execute(insert(spaces).values(name="fine"))

    def bad(connection: Connection) -> None:
        connection.execute(insert(spaces).values(name="bad"))
        connection.execute(insert(spaces).values(name="bad"))

    outcomes = await asyncio.gather(store.write(fine), store.write(bad), return_exceptions=True)
    assert outcomes[0] is None
    assert isinstance(outcomes[1], StateError)
    assert "bad" not in str(outcomes[1]).replace(store.where, "")
    assert await store.read(lambda c: c.scalars(select(spaces.c.name)).all()) == ["fine"]


async def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises(StateError, match="read-only; point state_url at the primary"):
        await store.read(lambda c: c.execute(insert(spaces).values(name="x")))


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (("postgres@", "guarded:geheim@"), "check the user and password"),
        (("postgres@", "guarded@"), "check the user and password"),
        (("ep-", "nowhere-"), "cannot be reached; check state_url and that the server runs"),
    ],
)
async def test_a_server_that_does_not_let_us_in_says_what_to_do(
    store: Store, change: tuple[str, str], remedy: str
) -> None:
    make = "DO $$ BEGIN CREATE ROLE guarded LOGIN PASSWORD 'x'; EXCEPTION WHEN OTHERS THEN END $$"
    await store.write(lambda c: c.execute(text(make)))
    with pytest.raises(StateError, match=remedy) as caught:
        Store(store.url.replace(*change), FakeClock())
    assert "geheim" not in str(caught.value)


async def test_a_connection_the_server_dropped_is_made_anew(store: Store) -> None:
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=current_database()"
    with _another(store) as other:
        writes = [other.write(lambda c: c.execute(text(kill))) for _ in range(3)]
        for told in await asyncio.gather(*writes, return_exceptions=True):
            assert isinstance(told, StateInterrupted), told
            assert "shutting down" in str(told)
    assert await store.read(lambda c: c.scalar(select(func.count()).select_from(spaces))) == 0


async def test_a_server_that_is_restarted_is_waited_for_and_a_write_is_done_once() -> None:
    with server_folder() as folder:
        with postgres_in(folder) as url:
            store = Store(url, SystemClock())
        writing = asyncio.create_task(
            store.write(lambda c: c.execute(insert(spaces).values(name="once")))
        )
        reading = asyncio.create_task(store.read(lambda c: c.scalar(text("SELECT 1"))))
        await asyncio.sleep(0.1)
        assert not writing.done()
        with postgres_in(folder), store:
            await writing
            assert await reading == 1
            names = await store.read(lambda c: c.scalars(select(spaces.c.name)).all())
    assert names == ["once"]


async def test_a_server_that_stays_away_is_told_after_a_bounded_wait() -> None:
    clock = FakeClock()
    with server_folder() as folder:
        with postgres_in(folder) as url:
            store = Store(url, clock)
        with store, pytest.raises(StateUnreachable, match="check state_url and that the server"):
            await store.write(lambda c: c.execute(insert(spaces).values(name="never")))
    assert PATIENCE_SECONDS <= clock.elapsed <= PATIENCE_SECONDS + PAUSES[1]


async def test_two_services_pay_for_each_text_once(postgres_url: str, tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(60)]
    async with listening(FakeOpenAI()) as fake:
        tree = {
            "data_dir": str(tmp_path),
            "state_url": postgres_url,
            "embedding": {"model": "openai/text-embedding-3-small"},
            "providers": [{"name": "openai", "kind": "openai", "base_url": fake.base_url}],
            "requests": {"max_inputs": 7},
        }
        settings = load_settings(tree)

        async def one() -> bytes:
            async with EmbeddingService(settings=settings, api_key=KEY) as service:
                rows = await service.embed_many(texts, project=Account("p").project)
                return rows.tobytes()

        first, second = await asyncio.gather(one(), one())
        assert first == second
        assert fake.books.billed_twice == 0
        assert fake.books.inputs == len(texts)
    with Store(postgres_url, SystemClock()) as store:
        booked = await store.read(
            lambda c: c.exec_driver_sql("SELECT sum(tokens) FROM ledger").scalar()
        )
    assert int(booked or 0) == fake.books.tokens
