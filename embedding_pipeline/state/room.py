"""How much room the store takes, and giving back what became free.

Belongs here: pages and files. Does not belong here: deciding what is deleted.

SQLite keeps the pages of deleted rows in its file and uses them for the next rows;
``give_back`` moves pages from the end into the holes and cuts the file, a few at a time.
PostgreSQL's autovacuum makes the room usable again by itself; the table's file shrinks
only by ``VACUUM FULL``, which nobody but its administrator should start.
"""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from embedding_pipeline.state.beside import beside

PAGES: Final = 512
"""Pages given back in one transaction: 16 MiB, a moment of the writer's lock."""


@dataclass(frozen=True)
class Room:
    """What the store takes on disk.

    Attributes:
        total_bytes: the database file and those beside it, or PostgreSQL's table of vectors
            with its indexes.
        free_bytes: of those, what the next rows will use; None where that is not known.
    """

    total_bytes: int
    free_bytes: int | None


def measure(connection: Connection) -> Room:
    """The room the store takes now. Raises StateError."""
    if connection.dialect.name == "postgresql":
        size = connection.exec_driver_sql("SELECT pg_total_relation_size('vectors')").scalar_one()
        return Room(int(size), None)
    size, pages, free = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
        for name in ("page_size", "page_count", "freelist_count")
    )
    files = beside(connection)
    apart = 0 if files is None else files.total_bytes()
    return Room(size * pages + apart, size * free)


def give_back(connection: Connection, pages: int = PAGES) -> bool:
    """Cut up to ``pages`` free pages off a SQLite file; whether there are more.

    A file made before this was possible keeps its pages and uses them again. The file is
    cut at the next checkpoint, which the closing of the store makes.
    """
    if connection.dialect.name == "postgresql":
        return False
    if connection.exec_driver_sql("PRAGMA auto_vacuum").scalar_one() != _INCREMENTAL:
        return False
    free = int(connection.exec_driver_sql("PRAGMA freelist_count").scalar_one())
    for _ in range(min(pages, free)):  # Python's driver takes one step of it, which is a page
        connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")
    return free > pages


_INCREMENTAL: Final = 2
