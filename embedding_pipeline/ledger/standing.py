"""Where a budget stands, and how that is said.

Belongs here: one budget's figures at an instant, and their words. Pure. Does not belong
here: reading them (``budgets``).
"""

from dataclasses import dataclass
from datetime import datetime, tzinfo

from embedding_pipeline.ledger.affording import Room, covers
from embedding_pipeline.ledger.periods import Period, Window

EXHAUSTED = "exhausted"


@dataclass(frozen=True)
class Standing:
    """One budget in one of its periods. Amounts are nano-USD.

    Attributes:
        scope: ``all``, ``project:…`` or ``user:…``.
        period: ``day``, ``month`` or ``total``.
        limit_nano: the limit.
        spent_nano: booked, what may have been billed included.
        reserved_nano: most that requests which are out can still be billed.
        window: the period's borders.
        alert_at: shares of the limit at which people are told.
        zone: whose midnight divides the periods.
    """

    scope: str
    period: Period
    limit_nano: int
    spent_nano: int
    reserved_nano: int
    window: Window
    alert_at: tuple[float, ...]
    zone: tzinfo

    @property
    def left_nano(self) -> int:
        """Neither spent nor reserved; 0 where more was spent than the limit."""
        return max(0, self.limit_nano - self.spent_nano - self.reserved_nano)

    @property
    def room(self) -> Room:
        """What it leaves for new work."""
        return Room(self.scope, self.left_nano, max(0, self.limit_nano - self.spent_nano))

    @property
    def name(self) -> str:
        """The budget in a few words."""
        return f"budget {self.scope} ({self.period})"

    @property
    def share(self) -> float:
        """The part of the limit that is spent."""
        return self.spent_nano / self.limit_nano if self.limit_nano else 1.0

    def concerns(self, project: str, user: str) -> bool:
        """Whether it counts what this project and user spend."""
        return covers(self.scope, project, user)

    def reached(self) -> tuple[float, ...]:
        """The alert shares that are reached."""
        return tuple(at for at in self.alert_at if self.spent_nano >= at * self.limit_nano)

    def projected_nano(self, now_ms: int) -> int | None:
        """What will be spent by the period's end at its pace so far; None for ``total``."""
        passed = self.window.passed(now_ms)
        return None if passed is None else round(self.spent_nano / max(passed, 1e-9))

    def resets(self) -> str:
        """When it has room again by itself, in words."""
        if self.window.end_ms is None:
            return "it never resets: raise its limit_usd"
        when = datetime.fromtimestamp(self.window.end_ms / 1000, self.zone)
        return f"it resets at {when:%Y-%m-%d %H:%M %Z}"

    def words(self) -> str:
        """Scope, limit, spent and when it resets, as a sentence's end."""
        reserved = f", {dollars(self.reserved_nano)} reserved" if self.reserved_nano else ""
        return (
            f"{self.name}: {dollars(self.spent_nano)} of {dollars(self.limit_nano)} spent"
            f"{reserved}; {self.resets()}"
        )

    def alert_key(self, what: str) -> str:
        """The name of one alert: once for each budget, limit, period and share."""
        parts = (self.scope, self.period, self.window.start_ms, self.limit_nano, what)
        return "|".join(["budget", *map(str, parts)])


def dollars(nano: int) -> str:
    """An amount for people: cents, and as many digits more as small amounts need."""
    return f"${nano / 1e9:,.2f}" if nano == 0 or nano >= 10**9 else f"${nano / 1e9:.6f}"
