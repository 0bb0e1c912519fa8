"""Numbered, forward-only changes of the shared store's schema.

Belongs here: one function a version, and applying them under a lock. Does not
belong here: data of a room. A change of ``schema`` comes with a new entry here.
"""

import uuid
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, func, insert, inspect, select

from embedding_pipeline.errors import StateError
from embedding_pipeline.state import schema


def _create(connection: Connection) -> None:
    schema.metadata.create_all(connection)


def _add_limits(connection: Connection) -> None:
    schema.limits.create(connection, checkfirst=True)


def _add_cache_tiers(connection: Connection) -> None:
    schema.cache_stats.create(connection, checkfirst=True)
    schema.store_identity.create(connection, checkfirst=True)
    connection.execute(insert(schema.store_identity).values(id=uuid.uuid4().hex))


def _add_cache_groups(connection: Connection) -> None:
    schema.cache_groups.create(connection, checkfirst=True)
    for index in schema.vectors.indexes:
        index.create(connection, checkfirst=True)
    c, paid = schema.vectors.c, schema.ledger
    held = (
        select(
            c.entry_id,
            func.min(c.space_id),
            func.count(),
            func.sum(func.length(c.value)),
            func.coalesce(func.max(paid.c.at), 0),
        )
        .select_from(schema.vectors.outerjoin(paid, paid.c.id == c.entry_id))
        .group_by(c.entry_id)
    )
    connection.execute(insert(schema.cache_groups).from_select(schema.cache_groups.c.keys(), held))


def _add_budgets(connection: Connection) -> None:
    for table in (schema.budgets, schema.reservations, schema.deferred, schema.alerts):
        table.create(connection, checkfirst=True)


def _add_spaces(connection: Connection) -> None:
    schema.space_history.create(connection, checkfirst=True)
    schema.space_builds.create(connection, checkfirst=True)


def _add_submissions(connection: Connection) -> None:
    schema.submissions.create(connection, checkfirst=True)
    schema.submission_keys.create(connection, checkfirst=True)


def _add_vouchers(connection: Connection) -> None:
    schema.vouchers.create(connection, checkfirst=True)


def _allow_references(_connection: Connection) -> None:
    """``vectors.value`` may refer to a file: older code would take that for damage."""


MIGRATIONS: Final[tuple[Callable[[Connection], None], ...]] = (
    _create,
    _add_limits,
    _add_cache_tiers,
    _add_cache_groups,
    _add_budgets,
    _add_spaces,
    _add_submissions,
    _add_vouchers,
    _allow_references,
)
LATEST: Final = len(MIGRATIONS)


def version_of(connection: Connection) -> int:
    """The version the store is at; 0 when it is empty."""
    if not inspect(connection).has_table(schema.schema_version.name):
        return 0
    found = connection.scalar(select(func.max(schema.schema_version.c.version)))
    return int(found or 0)


def migrate(connection: Connection, now_ms: int) -> int:
    """Bring the store to the latest version, inside the caller's (exclusive) transaction.

    Returns:
        The number of migrations applied.

    Raises:
        StateError: the store was written by a newer version of this code.
    """
    at = version_of(connection)
    if at > LATEST:
        raise StateError(
            f"the state store is at schema version {at}, this code knows {LATEST}: "
            "upgrade embedding-pipeline, or point state_url at another database"
        )
    for number, apply in enumerate(MIGRATIONS[at:], start=at + 1):
        apply(connection)
        connection.execute(insert(schema.schema_version).values(version=number, applied_at=now_ms))
    return LATEST - at
