"""Days as options: one type, one spelling.

Belongs here: reading ``YYYY-MM-DD`` and writing it.
"""

from datetime import date
from typing import Final

import click


class _Day(click.ParamType[date]):
    name = "day"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> date:
        if isinstance(value, date):
            return value
        try:
            day = date.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a day; write it like 2026-01-31", param, ctx)
        if day.isoformat() != value:
            self.fail(f"{value!r}: write the day like {day.isoformat()}", param, ctx)
        return day


DAY: Final = _Day()
"""A click type: a day, ``YYYY-MM-DD``."""


def as_text(day: date | None) -> str | None:
    """A day as partitions are called."""
    return None if day is None else day.isoformat()
