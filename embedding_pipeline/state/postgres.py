"""PostgreSQL as the shared store: the engine, what a transaction is there, and remedies.

Belongs here: everything of the store that only PostgreSQL needs (psycopg 3, extra
``postgres``). Does not belong here: any statement of a room.

Rooms are written for one writer at a time, as SQLite has it. Here an advisory lock,
taken first in every writing transaction and given back by its end, whatever the end is,
makes it so; writes of one process share a commit (``grouping``), so that a lock held per
commit costs little. A store opened with ``rows=True`` locks rows instead, one by one.
Readers take no lock and see one snapshot.
"""

from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from embedding_pipeline.errors import MissingExtra
from embedding_pipeline.state.trust import distrust

DRIVER: Final = "postgresql+psycopg"
CONNECT_SECONDS: Final = 10
WRITER_LOCK: Final = 0x656D6264  # any constant; shared by all that write to one database

_REMEDY: Final = {
    "25006": "it is read-only; point state_url at the primary server",
    "53100": "its disk is full; free space and run again, nothing is damaged",
    "53300": "it has no free connections; raise max_connections, or run fewer processes",
    "55P03": "another process held the lock for too long; end it, or wait",
    "42501": "the role lacks a permission; grant it, or name another role in state_url",
    "28": "it refuses the login; check the user and password in state_url",
    "3D000": "there is no such database; create it, or name another in state_url",
    "57P": "the server is shutting down or starting; run again when it is up",
}


def normalised(url: URL) -> URL:
    """The URL with psycopg 3 as its driver, whichever PostgreSQL driver it named."""
    return url.set(drivername=DRIVER)


def postgres_engine(url: URL, connections: int, wait_seconds: int) -> Engine:
    """An engine that holds at most ``connections``.

    Args:
        url: of any PostgreSQL form.
        connections: size of the pool.
        wait_seconds: how long a transaction waits for another process's.

    Raises:
        MissingExtra: psycopg is not installed.
    """
    try:
        import psycopg  # noqa: F401
    except ImportError as exc:
        raise MissingExtra("PostgreSQL as state_url", "postgres") from exc
    engine = create_engine(
        normalised(url),
        pool_size=connections,
        max_overflow=0,
        pool_pre_ping=True,  # the server may have been restarted in between
        hide_parameters=True,  # vectors and names are parameters, errors reach logs
        connect_args={
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "embedding-pipeline",
            "options": f"-c lock_timeout={wait_seconds}s",
        },
    )
    event.listen(engine, "begin", _on_begin)
    event.listen(engine, "before_cursor_execute", _on_execute)
    return engine


def _on_begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("exclusive", True):
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    elif options.get("rows", False):
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
    else:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")


def _on_execute(
    _connection: Any, cursor: Any, _statement: str, _values: Any, context: Any, _many: bool
) -> None:
    """Results in PostgreSQL's binary form, where a statement asks for it."""
    if context.execution_options.get("binary"):
        cursor.format = 1


def reason(exc: DBAPIError) -> str:
    """What is wrong and what to do."""
    state = getattr(exc.orig, "sqlstate", None)
    if state is None:
        return _no_connection(exc.orig)
    for prefix, remedy in _REMEDY.items():
        if state.startswith(prefix):
            return remedy
    return f"{type(exc.orig).__name__} ({state}): {_primary(exc.orig)}"


def is_away(exc: DBAPIError) -> bool:
    """Whether the server is being restarted, or cannot be reached; not whether it refuses us."""
    state = getattr(exc.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(("57P", "08"))
    link = getattr(exc.orig, "pgconn", None)
    return link is not None and not (link.needs_password or link.used_password)


def distrusted(exc: DBAPIError) -> str | None:
    """Why its certificate is not believed, and what to do; None where it is something else.

    Asks the server again: not for the thread of an event loop.
    """
    link = getattr(exc.orig, "pgconn", None)
    return None if link is None or getattr(exc.orig, "sqlstate", None) else distrust(link)


def is_lost(exc: DBAPIError) -> bool:
    """Whether the connection broke, or the server is being restarted, within a transaction."""
    return bool(exc.connection_invalidated) or is_away(exc)


def _no_connection(error: Any) -> str:
    """A failed connection has no code, but it is known whether a password was asked."""
    link = getattr(error, "pgconn", None)
    if link is not None and (link.needs_password or link.used_password):
        return _REMEDY["28"]
    return f"it cannot be reached; check state_url and that the server runs ({error})"


def _primary(error: Any) -> str:
    """The message without its detail, which may repeat values."""
    return str(getattr(error.diag, "message_primary", "") or "")
