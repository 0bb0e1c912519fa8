"""Chunks from a query: the day's rows and no others, read-only, streamed, within bounds."""

import tracemalloc
from collections.abc import Generator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from embedding_pipeline.errors import ConfigurationError, SourceError
from embedding_pipeline.records import Rejected, Row
from embedding_pipeline.sources.base import Item
from embedding_pipeline.sources.config import SourceConfig
from embedding_pipeline.sources.opening import open_source
from embedding_pipeline.sources.sql import SqlSource

DAY = date(2025, 3, 18)
QUERY = """
    SELECT id, body AS text, team AS project, written, extra FROM notes
    WHERE written >= :start AND written < :end ORDER BY id
"""
ROWS = [
    (1, "the evening before", "2025-03-17 23:59:59"),
    (2, "midnight", "2025-03-18 00:00:00"),
    (3, "its last second; 'quoted' :start", "2025-03-18 23:59:59"),
    (4, "the next day", "2025-03-19 00:00:00"),
]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with a table of notes."""
    if request.param == "sqlite":
        return filled(f"sqlite:///{tmp_path / 'notes.db'}")
    return filled(request.getfixturevalue("postgres_url"))


def filled(url: str) -> str:
    execute(
        url,
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT, team TEXT, written TIMESTAMP, "
        "extra NUMERIC)",
        *(
            f"INSERT INTO notes VALUES ({n}, '{body.replace(chr(39), chr(39) * 2)}', "
            f"'red', '{at}', 1.5)".replace(":start", "\\:start")
            for n, body, at in ROWS
        ),
    )
    return url


def execute(url: str, *statements: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def source(url: str, query: str = QUERY, **values: Any) -> SqlSource:
    config = SourceConfig(kind="sql", query=query, url_env="ANY", **values)
    return SqlSource(config, url, values.pop("timezone", "UTC"))


def rows(items: list[Item]) -> list[Row]:
    assert all(isinstance(item, Row) for item in items), items
    return [item for item in items if isinstance(item, Row)]


def test_a_day_has_its_rows_and_no_others(database: str) -> None:
    found = rows(list(source(database).read(DAY)))
    assert [(row.row_id, row.text) for row in found] == [
        ("2", "midnight"),
        ("3", "its last second; 'quoted' :start"),
    ]
    assert {row.project for row in found} == {"red"}
    assert found[0].location == "2025-03-18 row 1"
    assert set(found[0].metadata) == {"written", "extra"}
    assert list(source(database).read(date(2026, 1, 1))) == []


def test_a_bad_row_does_not_take_the_others_down(database: str) -> None:
    execute(database, "UPDATE notes SET body = NULL WHERE id = 2")
    bad, good = source(database).read(DAY)
    assert isinstance(bad, Rejected)
    assert (bad.reason, bad.row_id) == ("no_text", "2")
    assert isinstance(good, Row)


def test_nothing_is_ever_written(database: str) -> None:
    write = "DELETE FROM notes WHERE written >= :start AND written < :end RETURNING id, body"
    if database.startswith("postgresql"):
        days = "CAST(:start AS date) < CAST(:end AS date)"
        write = f"SELECT lo_create(0) AS id, 'x' AS text WHERE {days}"
    with pytest.raises(SourceError, match=r"readonly|read-only"):
        list(source(database, write).read(DAY))
    assert len(list(source(database).read(DAY))) == 2


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT id FROM notes WHERE written >= :start AND written < :end", "no column 'text'"),
        ("SELECT nonsense FROM notes WHERE :start < :end", "source.query failed on .*nonsense"),
    ],
)
def test_a_query_that_is_wrong_says_so(database: str, query: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        list(source(database, query).read(DAY))


def test_the_stamp_is_the_query(database: str) -> None:
    one, other = source(database), source(database, f"{QUERY} DESC")
    assert one.stamp(DAY) == source(database).stamp(DAY) != other.stamp(DAY)
    assert one.stamp(DAY) != one.stamp(date(2025, 3, 19))


def test_a_large_result_is_streamed(database: str) -> None:
    many, size = 4000, 20_000
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})"
    long = (
        f"substr(replace(hex(zeroblob({size})), '0', 'x'), 1, {size})"
        if database.startswith("sqlite")
        else f"repeat('x', {size})"
    )
    query = f"{numbers} SELECT i AS id, {long} AS text FROM n WHERE :start < :end"
    if not database.startswith("sqlite"):
        query = query.replace(":start < :end", "CAST(:start AS date) < CAST(:end AS date)")
    tracemalloc.start()
    try:
        seen = sum(1 for _ in source(database, query).read(DAY))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen == many
    assert peak < many * size / 3


def test_a_reader_that_stops_early_lets_the_database_go(database: str) -> None:
    reading = source(database).read(DAY)
    next(reading)
    assert isinstance(reading, Generator)
    reading.close()
    execute(database, "DROP TABLE notes")


def test_days_divide_where_the_time_zone_says(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE events (id INTEGER, text TEXT, at TIMESTAMPTZ)",
        "INSERT INTO events VALUES (1, 'late in Berlin, and the day before in UTC', "
        "'2025-03-17 23:30:00+00')",
    )
    query = "SELECT id, text FROM events WHERE at >= :start AND at < :end"
    config = SourceConfig(kind="sql", query=query, url_env="ANY")
    assert list(SqlSource(config, postgres_url, "UTC").read(DAY)) == []
    assert len(list(SqlSource(config, postgres_url, "Europe/Berlin").read(DAY))) == 1


def test_a_query_that_takes_too_long_is_ended(postgres_url: str) -> None:
    days = "CAST(:start AS date) < CAST(:end AS date)"
    slow = f"SELECT 1 AS id, pg_sleep(600)::text AS text WHERE {days}"
    with pytest.raises(SourceError, match=r"timeout.*source.timeout_seconds \(0.05\)"):
        list(source(postgres_url, slow, timeout_seconds=0.05).read(DAY))


def test_no_password_is_shown_and_no_file_is_made(tmp_path: Path) -> None:
    away = source("postgresql://me:geheim@127.0.0.1:9/x")
    with pytest.raises(SourceError) as caught:
        list(away.read(DAY))
    assert "geheim" not in str(caught.value)
    missing = tmp_path / "none.db"
    with pytest.raises(SourceError, match="unable to open"):
        list(source(f"sqlite:///{missing}").read(DAY))
    assert not missing.exists()


@pytest.mark.parametrize("url", ["nonsense", "oracle+nodriver://host/x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"source\.url"):
        source(url)


def test_settings_open_it(database: str) -> None:
    config = SourceConfig(kind="sql", query=QUERY, url_env="ANY")
    assert len(list(open_source(config, DAY, database).read(DAY))) == 2
