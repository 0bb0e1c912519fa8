"""When partitions were last materialized, for many of them at once.

Belongs here: asking Dagster a bounded number of times, however many partitions there are. Does
not belong here: what a materialization says.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import dagster as dg

Latest: TypeAlias = Mapping[str, dg.EventLogRecord]
"""Record of the latest materialization, by partition; those without one are left out."""

PAGE: Final = 500
"""Partitions in one query, and records in one answer."""


def latest_materializations(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Sequence[str]
) -> Latest:
    """The latest materialization of each of ``partitions``."""
    found: dict[str, dg.EventLogRecord] = {}
    for start in range(0, len(partitions), PAGE):
        found |= _latest(instance, asset, partitions[start : start + PAGE])
    return found


def _latest(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, dg.EventLogRecord]:
    """Newest first, and asks on only for those that it has not seen."""
    found: dict[str, dg.EventLogRecord] = {}
    cursor = None
    while missing := [partition for partition in partitions if partition not in found]:
        only = dg.AssetRecordsFilter(asset_key=asset, asset_partitions=missing)
        page = instance.fetch_materializations(only, limit=PAGE, cursor=cursor)
        for record in page.records:
            if record.partition_key is not None:
                found.setdefault(record.partition_key, record)
        if not page.has_more:
            break
        cursor = page.cursor
    return found
