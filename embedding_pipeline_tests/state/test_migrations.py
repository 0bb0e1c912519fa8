"""The schema comes up to date once, whoever opens first, and never goes back."""

import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, inspect, select, update

from embedding_pipeline.errors import StateError
from embedding_pipeline.state import schema
from embedding_pipeline.state.migrations import LATEST, migrate, version_of
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.stores import open_store

pytestmark = pytest.mark.anyio


async def test_a_fresh_store_is_at_the_latest_version_with_every_table(store: Store) -> None:
    assert await store.read(version_of) == LATEST
    tables = await store.read(lambda c: set(inspect(c).get_table_names()))
    assert tables >= set(schema.metadata.tables)


async def test_opening_again_changes_nothing(store: Store, tmp_path: Path) -> None:
    def versions(connection: Connection) -> list[tuple[int, int]]:
        return [tuple(row) for row in connection.execute(select(schema.schema_version))]

    before = await store.read(versions)
    assert [version for version, _ in before] == list(range(1, LATEST + 1))
    with open_store(tmp_path):
        pass
    assert await store.read(versions) == before
    assert await store.write(lambda c: migrate(c, 1)) == 0


async def test_a_store_of_an_older_version_is_brought_up_and_keeps_its_rows(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:

        def age(connection: Connection) -> None:
            connection.execute(insert(schema.spaces).values(name="openai/model@8"))
            later = schema.schema_version.c.version > 1
            connection.execute(schema.schema_version.delete().where(later))
            connection.exec_driver_sql("DROP TABLE limits")

        await store.write(age)
        assert await store.read(version_of) == 1
    with open_store(tmp_path) as store:
        assert await store.read(version_of) == LATEST
        assert await store.read(lambda c: c.scalar(select(func.count(schema.limits.c.key)))) == 0
        assert await store.read(lambda c: c.scalar(select(schema.spaces.c.name)))


async def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    table = schema.schema_version
    with open_store(tmp_path) as store:
        await store.write(lambda c: c.execute(update(table).values(version=table.c.version + 1000)))
    with pytest.raises(StateError, match="upgrade embedding-pipeline, or point state_url at"):
        open_store(tmp_path)


def test_several_that_open_a_fresh_store_at_once_make_it_once(tmp_path: Path) -> None:
    barrier, errors = threading.Barrier(6), []

    def open_and_close() -> None:
        barrier.wait()
        try:
            open_store(tmp_path).close()
        except StateError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=open_and_close) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
