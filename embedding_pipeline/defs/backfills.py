"""Dagster's backfills from inside a sensor: one for each attempt, whatever dies meanwhile.

Belongs here: adding, asking after and cancelling them. There is no public way in Dagster
1.13 to request one backfill from a sensor, and the one behind declarative automation adds a
second one when the daemon dies between adding and noting it; with ids that we choose, the
same one is found again. Does not belong here: when one is needed (``spaces.decision``).
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import dagster as dg
from dagster._core.errors import DagsterInvariantViolationError
from dagster._core.execution.backfill import (
    BULK_ACTION_TERMINAL_STATUSES,
    BulkActionsFilter,
    BulkActionStatus,
    PartitionBackfill,
)

from embedding_pipeline.clock import SystemClock
from embedding_pipeline.defs.compat import backfill_of

if TYPE_CHECKING:
    from embedding_pipeline.spaces.decision import Backfill

_ACTIVE: Final = [
    status for status in BulkActionStatus if status not in BULK_ACTION_TERMINAL_STATUSES
]


def status_of(instance: dg.DagsterInstance, backfill_id: str) -> "Backfill":
    """What Dagster says of a backfill."""
    from embedding_pipeline.spaces.decision import Backfill

    found = instance.get_backfill(backfill_id)
    if found is None:
        return Backfill.ABSENT
    if found.status is BulkActionStatus.CANCELED:
        return Backfill.CANCELLED
    return Backfill.ACTIVE if found.status in _ACTIVE else Backfill.ENDED


def is_over(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a run belongs to a backfill that has ended, or was deleted."""
    backfill_id = backfill_of(run)
    if backfill_id is None:
        return False
    found = instance.get_backfill(backfill_id)
    return found is None or found.status in BULK_ACTION_TERMINAL_STATUSES


def active_with(instance: dg.DagsterInstance, tag: str) -> list[str]:
    """Ids of the active backfills that have a tag."""
    found = instance.get_backfills(filters=BulkActionsFilter(statuses=_ACTIVE))
    return [backfill.backfill_id for backfill in found if tag in backfill.tags]


def is_active(instance: dg.DagsterInstance, backfill_id: str) -> bool:
    """Whether the daemon has not ended it yet."""
    found = instance.get_backfill(backfill_id)
    return found is not None and found.status in _ACTIVE


def add(
    context: dg.SensorEvaluationContext,
    backfill_id: str,
    assets: Sequence[str],
    days: Sequence[str],
    *,
    tags: Mapping[str, str],
    title: str,
    description: str,
) -> bool:
    """Add a backfill over some partitions of some assets, unless it is there; says which.

    The daemon cuts it into runs as the assets' backfill policy says.
    """
    if context.instance.get_backfill(backfill_id) is not None:
        return False
    repository = context.repository_def
    if repository is None:
        raise DagsterInvariantViolationError("a sensor that adds backfills needs its repository")
    words = {"title": title, "description": description}
    add_to(context.instance, repository, backfill_id, assets, days, tags=tags, **words)
    return True


def add_to(
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    backfill_id: str,
    assets: Sequence[str],
    days: Sequence[str],
    *,
    tags: Mapping[str, str],
    title: str,
    description: str,
) -> None:
    """Add a backfill that is not there yet."""
    with warnings.catch_warnings():  # Dagster warns of a call of its own
        warnings.simplefilter("ignore", DeprecationWarning)
        instance.add_backfill(
            PartitionBackfill.from_asset_partitions(
                backfill_id=backfill_id,
                asset_graph=repository.asset_graph,
                partition_names=list(days),
                asset_selection=[dg.AssetKey(name) for name in assets],
                backfill_timestamp=SystemClock().now(),
                tags=dict(tags),
                dynamic_partitions_store=instance,
                all_partitions=False,
                title=title,
                description=description,
                run_config=None,
            )
        )


def cancel_others(instance: dg.DagsterInstance, tag: str, keep: str | None) -> list[str]:
    """Cancel every active backfill that has ``tag`` with another value than ``keep``."""
    cancelled = []
    for backfill in instance.get_backfills(filters=BulkActionsFilter(statuses=_ACTIVE)):
        value = backfill.tags.get(tag)
        if value is None or value == keep or backfill.status is BulkActionStatus.CANCELING:
            continue
        ending: PartitionBackfill = backfill.with_status(  # type: ignore[no-untyped-call]
            BulkActionStatus.CANCELING
        )
        instance.update_backfill(ending)
        cancelled.append(backfill.backfill_id)
    return cancelled
