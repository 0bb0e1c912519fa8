"""Many rows in one statement, straight to the driver.

Belongs here: the forms of INSERT, SELECT and DELETE that hot paths need; SQLAlchemy's
own cost a dictionary or a converted value for each row and key. Does not belong here:
which rows, or when.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice
from typing import Any, Final

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

BATCH: Final = 500
"""Keys or rows in one statement."""

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
    mark, width, rest = _mark(connection), len(table.columns), iter(rows)
    many = min(MOST_PARAMETERS // width, BATCH)
    while values := tuple(chain.from_iterable(islice(rest, many))):
        statement = _insert(table, mark, len(values) // width, conflict)
        counted = {"preserve_rowcount": True}
        done += connection.exec_driver_sql(statement, values, counted).rowcount
    return done


@cache
def _insert(table: Table, mark: str, rows: int, conflict: str) -> str:
    """One statement for all rows: ``executemany`` would take the GIL anew for each."""
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    marks = ", ".join([f"({', '.join([mark] * len(table.columns))})"] * rows)
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
        yield from connection.exec_driver_sql(statement, values)


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
    mark = _mark(connection)
    more = "".join(f' AND "{column}" = {mark}' for column in equal)
    for statement, values in _by_digest(connection, head, space_id, digests):
        connection.exec_driver_sql(statement + more, (*values, *equal.values()))


def _by_digest(
    connection: Connection, head: str, space_id: int, digests: Sequence[bytes]
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    mark = _mark(connection)
    for start in range(0, len(digests), BATCH):
        batch = digests[start : start + BATCH]
        marks = ", ".join([mark] * len(batch))
        where = f'WHERE "space_id" = {mark} AND "digest" IN ({marks})'
        yield f"{head} {where}", (space_id, *batch)


def _mark(connection: Connection) -> str:
    return "?" if connection.dialect.paramstyle == "qmark" else "%s"
