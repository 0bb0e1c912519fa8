"""When partitions were last materialized, for many of them at once.

Belongs here: asking Dagster a bounded number of times, however many partitions there are. Does
not belong here: what a materialization says.

Dagster's own way reads every one of those events whole, at a millisecond each.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Final, TypeAlias

import dagster as dg
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from sqlalchemy import select

from embedding_pipeline.defs.compat import Target

Latest: TypeAlias = Mapping[str, Target]
"""Which materialization is the latest one, by partition; those without one are left out."""

PAGE: Final = 500
"""Partitions in one query."""


def latest_materializations(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Sequence[str]
) -> Latest:
    """The latest materialization of each of ``partitions``."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return {}  # what a check looked at is then not said
    found: dict[str, Target] = {}
    for start in range(0, len(partitions), PAGE):
        page = set(partitions[start : start + PAGE])
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        found |= _targets(storage, storage.get_latest_storage_id_by_partition(asset, kind, page))
    return found


def _targets(storage: SqlEventLogStorage, latest: Mapping[str, int]) -> dict[str, Target]:
    """The events with these ids, by partition."""
    c = SqlEventLogStorageTable.c
    query = select(c.id, c.run_id, c.timestamp).where(c.id.in_(latest.values()))
    with storage.index_connection() as connection:
        rows = {row.id: row for row in connection.execute(query)}
    return {
        partition: Target(
            storage_id=id_,
            run_id=rows[id_].run_id,
            timestamp=rows[id_].timestamp.replace(tzinfo=UTC).timestamp(),
        )
        for partition, id_ in latest.items()
    }
