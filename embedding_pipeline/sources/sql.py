"""Chunks from a database: the rows that a query gives for a day.

Belongs here: running the query, read-only, streamed and within bounds. Does not belong
here: what a good row is (``rows``), or where the address comes from (``settings``).

``:start`` is the day and ``:end`` the next one; both are sent as parameters, never as text.
They are dates; PostgreSQL takes them as midnight in ``partitions.timezone``. What is not
PostgreSQL or SQLite is read in a transaction that is rolled back, by whatever driver
SQLAlchemy finds.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from embedding_pipeline.errors import ConfigurationError, MissingExtra, SourceError
from embedding_pipeline.sources.base import ChunkSource, Item
from embedding_pipeline.sources.config import SourceConfig
from embedding_pipeline.sources.lines import MAX_LINE_BYTES
from embedding_pipeline.sources.rows import Record, to_row

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, CursorResult, Engine

CONNECT_SECONDS: Final = 10
_ROWS: Final = 200
"""Rows held at a time."""


class SqlSource(ChunkSource):
    """The rows of ``source.query``.

    Args:
        config: a source of kind ``sql``.
        url: the database, as SQLAlchemy writes it; may hold a password.
        timezone: whose midnight divides days.

    Raises:
        ConfigurationError: the address is none, or its driver is not installed.
    """

    def __init__(self, config: SourceConfig, url: str, timezone: str = "UTC") -> None:
        self._query = config.query or ""
        self._fields = config.fields
        self._seconds = config.timeout_seconds
        self._engine = _engine(url, timezone, self._seconds)
        self._where = self._engine.url.render_as_string(hide_password=True)

    def stamp(self, day: date) -> str:
        """A digest of the query: that rows changed is not known without reading them."""
        said = repr((self._query, self._fields.model_dump(), day.isoformat()))
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def read(self, day: date) -> Iterator[Item]:
        with (
            self._edge(),
            closing(self._engine.connect()) as connection,
            closing(self._execute(connection, day)) as rows,
        ):
            self._check(set(rows.keys()))
            number = 0
            while page := rows.mappings().fetchmany(_ROWS):
                for values in page:
                    number += 1
                    yield self._item(dict(values), f"{day} row {number}")

    def _execute(self, connection: "Connection", day: date) -> "CursorResult[Any]":
        from sqlalchemy import text

        options: dict[str, Any] = {"stream_results": True, "max_row_buffer": _ROWS}
        if connection.dialect.name == "postgresql":
            options["postgresql_readonly"] = True
        bounds: dict[str, object] = {"start": day, "end": day + timedelta(days=1)}
        if connection.dialect.name == "sqlite":
            bounds = {name: str(value) for name, value in bounds.items()}
        return connection.execution_options(**options).execute(text(self._query), bounds)

    def _check(self, columns: set[str]) -> None:
        missing = sorted({self._fields.id, self._fields.text} - columns)
        if missing:
            raise SourceError(
                f"source.query gives no column {missing[0]!r}, only {', '.join(sorted(columns))}; "
                f"name it with AS, or in source.fields"
            )

    def _item(self, values: Mapping[str, Any], location: str) -> Item:
        plain = {name: _plain(value) for name, value in values.items()}
        record = Record(location, plain)
        text = plain.get(self._fields.text)
        if isinstance(text, str) and len(text) > MAX_LINE_BYTES:
            return record.rejected("too_long", str(plain.get(self._fields.id) or ""))
        return to_row(record, self._fields)

    @contextmanager
    def _edge(self) -> Iterator[None]:
        """Errors of the database, without the values that were sent."""
        from sqlalchemy.exc import DBAPIError, SQLAlchemyError

        try:
            yield
        except DBAPIError as exc:
            said = str(exc.orig).partition("\n")[0]
            raise SourceError(
                f"source.query failed on {self._where}: {said}; check the query, the address and "
                f"the rights of its user (reading is enough), and source.timeout_seconds "
                f"({self._seconds:g})"
            ) from exc
        except SQLAlchemyError as exc:
            said = str(exc).partition("\n")[0]
            raise SourceError(f"source.query cannot be run: {said}; correct it") from exc


def _plain(value: object) -> object:
    return str(value) if isinstance(value, UUID) else value


def _engine(url: str, timezone: str, seconds: float) -> "Engine":
    from sqlalchemy import create_engine, event, make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError
    from sqlalchemy.pool import NullPool

    try:
        parsed = _with_driver(make_url(url))
        options = _connect_arguments(parsed, timezone, seconds)
        engine = create_engine(
            parsed, poolclass=NullPool, hide_parameters=True, connect_args=options
        )
    except ArgumentError as exc:
        raise ConfigurationError(
            "source.url is not an SQLAlchemy URL; write it like postgresql://user@host/name"
        ) from exc
    except (ImportError, NoSuchModuleError) as exc:
        if url.startswith("postgresql"):
            raise MissingExtra("a source in PostgreSQL", "postgres") from exc
        raise ConfigurationError(f"source.url: {exc}; install the database's driver") from exc
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _only_read)
    return engine


def _with_driver(url: "URL") -> "URL":
    """PostgreSQL by the driver that the extra brings; SQLite without making a file."""
    if url.drivername in {"postgresql", "postgres"}:
        return url.set(drivername="postgresql+psycopg")
    if url.drivername.startswith("sqlite") and url.database:
        return url.set(database=f"file:{url.database}", query={"mode": "ro", "uri": "true"})
    return url


def _connect_arguments(url: "URL", timezone: str, seconds: float) -> dict[str, Any]:
    if url.get_backend_name() == "postgresql":
        limit = f"-c statement_timeout={int(seconds * 1000)} -c TimeZone={timezone}"
        given = str(url.query.get("options", ""))
        return {"connect_timeout": CONNECT_SECONDS, "options": f"{given} {limit}".strip()}
    if url.get_backend_name() == "sqlite":
        return {"timeout": seconds}
    return {}


def _only_read(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only=ON")
