"""Many rows in one statement, straight to the driver.

Belongs here: the forms of INSERT, SELECT and DELETE that hot paths need; SQLAlchemy's
own cost a dictionary or a converted value for each row and key. Does not belong here:
which rows, or when.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError

BATCH: Final = 500
"""Keys or rows in one statement."""

Value: TypeAlias = bytes | bytearray | memoryview

SKIP: Final = "DO NOTHING"
"""On conflict: the row that was there stays."""

MOST_PARAMETERS: Final = 4_000
"""Parameters in one statement; far below every database's bound."""


def insert_many(
    connection: Connection, table: Table, rows: Iterable[Sequence[Any]], *, conflict: str = ""
) -> int:
    """Insert tuples in the order of the table's columns.

    Args:
        connection: a writing transaction.
        table: where to.
        rows: values, best from ``zip``: then no tuple is made for each. None are converted,
            so they must be what the driver takes.
        conflict: what becomes of a row whose key is there already, as SQL; "" is an error.

    Returns:
        How many rows were inserted.
    """
    done = 0
    sign, width, rest = mark(connection), len(table.columns), iter(rows)
    many = min(MOST_PARAMETERS // width, BATCH)
    while values := tuple(chain.from_iterable(islice(rest, many))):
        statement = _insert(table, sign, len(values) // width, conflict)
        done += run(connection, statement, values).rowcount
    return done


def run(connection: Connection, statement: str, values: Sequence[Any] = ()) -> Any:
    """One statement in the driver's own words; the driver's cursor, or what stands for it.

    SQLite answers within the process: there SQLAlchemy would cost more than the statement.
    Errors are SQLAlchemy's in any case.
    """
    if connection.dialect.name != "sqlite":
        return connection.exec_driver_sql(
            statement, tuple(values), execution_options={"preserve_rowcount": True}
        )
    driver: Any = connection.connection.dbapi_connection
    try:
        return driver.execute(statement, values)
    except sqlite3.Error as exc:
        raise DBAPIError.instance(
            statement, None, exc, sqlite3.Error, hide_parameters=True, dialect=connection.dialect
        ) from exc


def insert_numbered(connection: Connection, table: Table, row: Sequence[Any]) -> int:
    """Insert one row, in the order of the columns after ``id``; returns the ``id`` it got."""
    names = [column.name for column in table.columns if column.name != "id"]
    columns = ", ".join(f'"{name}"' for name in names)
    marks = ", ".join([mark(connection)] * len(names))
    statement = f'INSERT INTO "{table.name}" ({columns}) VALUES ({marks})'  # noqa: S608 - as below
    if connection.dialect.name == "sqlite":
        return int(run(connection, statement, row).lastrowid)
    return int(run(connection, statement + ' RETURNING "id"', row).scalar_one())


def has_row(connection: Connection, table: Table, key: str) -> bool:
    """Whether there is a row with this ``id``."""
    statement = f'SELECT 1 FROM "{table.name}" WHERE "id" = {mark(connection)}'  # noqa: S608
    return run(connection, statement, (key,)).fetchone() is not None


def delete_row(connection: Connection, table: Table, key: str) -> None:
    """Delete the row with this ``id``, if there is one."""
    run(connection, f'DELETE FROM "{table.name}" WHERE "id" = {mark(connection)}', (key,))  # noqa: S608


@cache
def _insert(table: Table, sign: str, rows: int, conflict: str) -> str:
    """One statement for all rows: ``executemany`` would take the GIL anew for each."""
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    marks = ", ".join([f"({', '.join([sign] * len(table.columns))})"] * rows)
    tail = f" ON CONFLICT {conflict}" if conflict else ""
    # Names come from our own schema, values are parameters.
    return f'INSERT INTO "{table.name}" ({columns}) VALUES {marks}{tail}'  # noqa: S608


def upsert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ``on_conflict_do_update``, in the words of the database.

    SQLAlchemy compiles it anew each time (0.5 ms): hot paths use ``insert_many``.
    """
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def select_by_digest(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    space_id: int,
    digests: Sequence[bytes],
) -> Iterator[Sequence[Any]]:
    """The named columns of the rows of one space with these digests, in any order."""
    names = ", ".join(f'"{name}"' for name in columns)
    head = f'SELECT {names} FROM "{table.name}"'  # noqa: S608 - names of our own schema
    for statement, values in _by_digest(connection, head, space_id, digests):
        yield from run(connection, statement, values).fetchall()


def read_values(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    space_id: int,
    digests: Sequence[bytes],
) -> Iterator[Sequence[Sequence[Any]]]:
    """The same for columns that hold much, a group of rows at a time.

    SQLite reads them in the order they lie on the disk, each page once: half the CPU. From
    PostgreSQL they come in its binary form: as text they are twice the bytes, 2.5 times the CPU.
    """
    names = ", ".join(f'"{name}"' for name in columns)
    head, tail = f'SELECT {names} FROM "{table.name}"', ""  # noqa: S608 - as above
    if connection.dialect.name == "sqlite":
        head += f' WHERE rowid IN (SELECT rowid FROM "{table.name}"'  # noqa: S608
        tail = ") ORDER BY rowid"
    for statement, values in _by_digest(connection, head, space_id, digests):
        result = connection.exec_driver_sql(
            statement + tail, values, execution_options={"binary": True}
        )
        yield result.fetchall()


def delete_by_digest(
    connection: Connection, table: Table, space_id: int, digests: Sequence[bytes], **equal: Any
) -> None:
    """Delete the rows of one space with these digests, where also columns ``equal`` values."""
    head = f'DELETE FROM "{table.name}"'  # noqa: S608 - names of our own schema
    sign = mark(connection)
    more = "".join(f' AND "{column}" = {sign}' for column in equal)
    for statement, values in _by_digest(connection, head, space_id, digests):
        run(connection, statement + more, (*values, *equal.values()))


def _by_digest(
    connection: Connection, head: str, space_id: int, digests: Sequence[bytes]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    sign = mark(connection)
    for start in range(0, len(digests), BATCH):
        batch = digests[start : start + BATCH]
        marks = ", ".join([sign] * len(batch))
        where = f'WHERE "space_id" = {sign} AND "digest" IN ({marks})'
        yield f"{head} {where}", (space_id, *blobs(connection, batch))


def blobs(connection: Connection, values: Iterable[Value]) -> Iterable[Value]:
    """The same values, as the driver takes them with the least CPU.

    Python's driver for SQLite asks for every ``bytes`` whether somebody adapts it, which costs
    as much as binding it; it takes a ``bytearray`` as it is.
    """
    return map(bytearray, values) if connection.dialect.name == "sqlite" else values


def mark(connection: Connection) -> str:
    """What stands for a value in a statement in the driver's own words."""
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"
