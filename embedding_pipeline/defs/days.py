"""The days that can be made: the partitions of the graph, and those that somebody asks for.

Belongs here: days by name, and what is wrong with those asked for. Does not belong here: what
runs over them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg

from embedding_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings


def daily_partitions(settings: "Settings") -> dg.DailyPartitionsDefinition:
    """One partition for each day that is over, from the first one on."""
    return dg.DailyPartitionsDefinition(
        start_date=settings.start_date.isoformat(), timezone=settings.partitions.timezone
    )


def available_days(settings: "Settings") -> list[str]:
    """The days that can be made now: from the first one to yesterday."""
    return list(daily_partitions(settings).get_partition_keys())


def days_between(settings: "Settings", start: str | None, end: str | None) -> list[str]:
    """The days that can be made from ``start`` to ``end``; None leaves a side open.

    Raises ConfigurationError, saying what to change.
    """
    available = available_days(settings)
    first, last = (available[0], available[-1]) if available else ("", "")
    return select_days(available, start or first, end or last)


def select_days(available: Sequence[str], start: str, end: str) -> list[str]:
    """The days from ``start`` to ``end``. Raises ConfigurationError, saying what to change."""
    if start > end:
        raise ConfigurationError(f"the first day, {start}, is after the last, {end}; swap them")
    if not available:
        raise ConfigurationError(
            "no day is over yet: partitions.start_date must be before today for a day to be made"
        )
    if start < available[0]:
        raise ConfigurationError(
            f"{start} is before the first partition, {available[0]}; "
            "start there, or move partitions.start_date back"
        )
    if end > available[-1]:
        raise ConfigurationError(
            f"{end} is not over yet; the last day that can be made is {available[-1]}"
        )
    return [day for day in available if start <= day <= end]
