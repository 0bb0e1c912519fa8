"""SQLite as the shared store: embedded, several processes on one machine.

Belongs here: how a connection is made, its settings, and what its errors mean. Does not
belong here: transactions (see ``store``), and any statement about what is kept.

WAL, ``synchronous=NORMAL`` (it survives a killed process; a power cut may lose the last
commits, never damage the file), 32 KB pages (five values of 6 KB fill one to 94 %: 1.03
bytes on disk for each of theirs, against 1.3 at 16 KB), writes in BEGIN IMMEDIATE. The log
is taken over every 8 MB, so that its pages are written again rather than new ones; statement
journals stay in memory, and a connection keeps 4 MB of pages (with more, memory grows with
the index for longer).
"""

import sqlite3
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.pool import QueuePool
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from embedding_pipeline.errors import ConfigurationError, StateError

BUSY_SECONDS: Final = 60
"""How long a transaction waits for another process's before it gives up."""

_OF_A_NEW_FILE: Final = ("page_size=32768", "auto_vacuum=INCREMENTAL", "journal_mode=WAL")
"""The file keeps these. With the second, what is evicted can be given back to the disk."""

_OF_A_CONNECTION: Final = (
    "synchronous=NORMAL",
    "cache_size=-4096",
    "temp_store=MEMORY",
    "wal_autocheckpoint=256",
    "foreign_keys=ON",
)

_TURNS: Final = (0.005, 0.05)
"""Seconds between two tries to be the one that makes a new file."""

_REMEDY: Final = {
    "SQLITE_BUSY": f"locked by another process for over {BUSY_SECONDS} s; end it, or wait",
    "SQLITE_LOCKED": "locked by another connection; end the other process, or wait",
    "SQLITE_FULL": "the disk is full; free space and run again, nothing is damaged",
    "SQLITE_READONLY": "the file is read-only; give write permission to it and its folder",
    "SQLITE_CANTOPEN": "the file cannot be opened; check that its folder exists and is writable",
    "SQLITE_CORRUPT": "the file is damaged; restore a backup, or move it away to start empty",
    "SQLITE_NOTADB": "the file is not a database; point state_url elsewhere or move it away",
    "SQLITE_IOERR": "the disk reports an input/output error; check it and its free space",
}


def sqlite_engine(url: URL, connections: int) -> Engine:
    """An engine that opens at most ``connections`` to the file at ``url``; the file is made.

    Raises:
        ConfigurationError: the URL names no file.
        StateError: the file's folder cannot be made.
    """
    path = url.database or ""
    if not path or path == ":memory:":
        raise ConfigurationError("state_url must name a file: every process opens its own memory")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise StateError(f"state store: cannot create {Path(path).parent}: {exc.strerror}") from exc
    try:
        engine = create_engine(
            f"sqlite:///{path}",
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            hide_parameters=True,  # vectors and names are parameters, errors reach logs
            connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False},
        )
    except NoSuchModuleError as exc:  # pragma: no cover - sqlite is always there
        raise ConfigurationError("this Python has no sqlite3 module") from exc
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def reason(error: sqlite3.Error) -> str:
    """What is wrong, and what to do."""
    name = str(getattr(error, "sqlite_errorname", ""))
    for prefix, remedy in _REMEDY.items():
        if name.startswith(prefix):
            return remedy
    return f"{type(error).__name__}: {error}"


def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see _on_begin
    _make_in_turn(connection)
    for pragma in _OF_A_CONNECTION:
        connection.execute(f"PRAGMA {pragma}")


def _make_in_turn(connection: sqlite3.Connection) -> None:
    """Of processes that find a new file at once, one changes its kind of log.

    SQLite refuses the others at once, whatever their ``timeout``: they have read the file, so
    that who changes it waits for them, and would wait for ever if they waited, too.
    """
    Retrying(
        retry=retry_if_exception(_is_busy),
        wait=wait_random(*_TURNS),
        stop=stop_after_delay(BUSY_SECONDS),
        reraise=True,
    )(_make, connection)


def _make(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        return
    for pragma in _OF_A_NEW_FILE:
        connection.execute(f"PRAGMA {pragma}")


def _is_busy(error: BaseException) -> bool:
    return str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_BUSY")


def _on_begin(connection: Connection) -> None:
    exclusive = connection.get_execution_options().get("exclusive", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if exclusive else "BEGIN")
