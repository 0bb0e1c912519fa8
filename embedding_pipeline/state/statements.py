"""Many rows in one statement, without building a dictionary for each.

Belongs here: the one form of INSERT that hot paths need. Does not belong here: which
rows, or when.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table


def insert_many(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], *, skip: bool = False
) -> None:
    """Insert tuples in the order of the table's columns.

    Args:
        connection: a writing transaction.
        table: where to.
        rows: values; none are converted, so they must be what the driver takes.
        skip: leave out rows whose key is there already, instead of failing.
    """
    if not rows:
        return
    mark = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    marks = ", ".join([mark] * len(table.columns))
    conflict = " ON CONFLICT DO NOTHING" if skip else ""
    # Names come from our own schema, values are parameters.
    statement = f'INSERT INTO "{table.name}" ({columns}) VALUES ({marks}){conflict}'  # noqa: S608
    connection.exec_driver_sql(statement, list(rows))
