"""The periods of budgets: which one an instant belongs to, and when the next begins.

Belongs here: calendars. Pure. Does not belong here: money.

A day begins at local midnight, or where the clocks skip it, at the first instant of the
day; it has 23 to 25 hours where they change.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Literal, TypeAlias

Period: TypeAlias = Literal["day", "month", "total"]


@dataclass(frozen=True)
class Window:
    """One period as instants, in milliseconds since the epoch.

    Attributes:
        start_ms: its first instant.
        end_ms: the first instant after it; None where it never ends.
    """

    start_ms: int
    end_ms: int | None

    def holds(self, at_ms: int) -> bool:
        """Whether an instant lies in it."""
        return self.start_ms <= at_ms and (self.end_ms is None or at_ms < self.end_ms)

    def passed(self, at_ms: int) -> float | None:
        """How much of it is over at an instant, from 0 to 1; None where it never ends."""
        if self.end_ms is None:
            return None
        share = (at_ms - self.start_ms) / (self.end_ms - self.start_ms)
        return min(max(share, 0.0), 1.0)


ALWAYS = Window(0, None)


def window_of(period: Period, at_ms: int, zone: tzinfo) -> Window:
    """The day or month that holds an instant, with its borders at midnight in ``zone``."""
    if period == "total":
        return ALWAYS
    today = datetime.fromtimestamp(at_ms / 1000, zone).date()
    first = today if period == "day" else today.replace(day=1)
    return Window(_midnight(first, zone), _midnight(_following(first, period), zone))


def _following(first: date, period: Period) -> date:
    if period == "day":
        return first + timedelta(days=1)
    return (first + timedelta(days=31)).replace(day=1)


def _midnight(day: date, zone: tzinfo) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)
