"""The figures a history consists of, as frozen values, and sums over them.

Belongs here: what is known of the past, and arithmetic on it. Pure. Does not belong here:
where the figures come from (``gathering``).
"""

from calendar import monthrange
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

PACE_DAYS: Final = 7
"""Full days whose mean is the pace of a projection."""

SAVINGS: Final = ("duplicate", "cache", "derived", "batch_api")
"""Sources by which money is saved, as ``cost_summary`` calls them."""


@dataclass(frozen=True)
class Spending:
    """What was booked on one day for one project, user and model.

    Attributes:
        day: the local day it was booked.
        project, user: who pays.
        model: the space's family and model.
        kind: ``api``, ``batch_api`` or ``local``.
        bulk: for a partition; otherwise for an online caller.
        requests, tokens: calls, and tokens billed.
        cost_nano_usd: money.
        unknown_nano_usd: the part of it that was in doubt.
        unpriced_tokens: billed when no price was known; their cost is in no sum.
    """

    day: date
    project: str
    user: str
    model: str
    kind: str
    bulk: bool
    requests: int
    tokens: int
    cost_nano_usd: int
    unknown_nano_usd: int
    unpriced_tokens: int = 0


@dataclass(frozen=True)
class Saving:
    """What one project's chunks from one source came to, over all finished partitions."""

    project: str
    source: str
    chunks: int
    tokens: int
    saved_nano_usd: int


@dataclass(frozen=True)
class Stored:
    """The vectors of one space under ``embeddings``.

    Attributes:
        space: its name.
        native: length of the full vector.
        dimensions: length of the vectors in the files.
        vectors: how many there are.
        file_bytes: size of the files.
    """

    space: str
    native: int
    dimensions: int
    vectors: int
    file_bytes: int

    @property
    def spared_bytes(self) -> int:
        """What the full vectors would take more, float32."""
        return 4 * self.vectors * (self.native - self.dimensions)


@dataclass(frozen=True)
class Overlap:
    """How much neighbouring chunks repeat, measured on some days.

    Attributes:
        days: the days measured, in order.
        tokens: of all chunks of these days.
        repeated_tokens: of them, what the chunk before holds as well.
        cost_nano_usd: what the ledger holds for these days.
    """

    days: tuple[str, ...]
    tokens: int
    repeated_tokens: int
    cost_nano_usd: int

    @property
    def share(self) -> float:
        """The part of the tokens that is repetition."""
        return self.repeated_tokens / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class NearCopies:
    """What a looser near-duplicate detection would have left out of some days, by project.

    Attributes:
        days: the days looked at.
        threshold: its threshold: the similarity from which on chunks count as copies.
        chunks, tokens: of each project: near copies that it paid for.
    """

    days: tuple[str, ...]
    threshold: float
    chunks: Mapping[str, int]
    tokens: Mapping[str, int]


@dataclass(frozen=True)
class History:
    """Everything that is known of the past.

    Attributes:
        today: the local day of the report.
        spending: by day, project, user, model, kind.
        savings: by project and source, over all finished partitions.
        stored: vectors by space.
        partitions: finished partitions.
        overlap: how much chunks repeat; None where nothing was split, or nothing measured.
        near: near copies that were paid for; None where nothing was looked at.
    """

    today: date
    spending: Sequence[Spending]
    savings: Sequence[Saving]
    stored: Sequence[Stored] = ()
    partitions: int = 0
    overlap: Overlap | None = None
    near: NearCopies | None = None

    @property
    def cost_nano_usd(self) -> int:
        """All money booked."""
        return sum(row.cost_nano_usd for row in self.spending)

    @property
    def unknown_nano_usd(self) -> int:
        """The part of it that was in doubt."""
        return sum(row.unknown_nano_usd for row in self.spending)

    @property
    def unpriced_tokens(self) -> int:
        """Tokens whose cost nobody knows."""
        return sum(row.unpriced_tokens for row in self.spending)

    @property
    def saved_nano_usd(self) -> int:
        """All money saved."""
        return sum(row.saved_nano_usd for row in self.savings)

    @property
    def first_day(self) -> date | None:
        """The day of the first booking."""
        return min((row.day for row in self.spending), default=None)

    def since(self, day: date) -> list[Spending]:
        """What was booked on ``day`` and after."""
        return [row for row in self.spending if row.day >= day]

    def saved_by(self) -> dict[str, int]:
        """Money saved, by source."""
        return {
            source: sum(row.saved_nano_usd for row in self.savings if row.source == source)
            for source in SAVINGS
        }


def cost_by(rows: Iterable[Spending], key: Callable[[Spending], str]) -> dict[str, int]:
    """Money by some property, the largest first, ties by name."""
    sums: dict[str, int] = {}
    for row in rows:
        sums[key(row)] = sums.get(key(row), 0) + row.cost_nano_usd
    return dict(sorted(sums.items(), key=lambda pair: (-pair[1], pair[0])))


def cost_by_day(rows: Iterable[Spending], first: date, last: date) -> dict[date, int]:
    """Money of each day from ``first`` to ``last``, days without any included."""
    sums = {first + timedelta(days=n): 0 for n in range((last - first).days + 1)}
    for row in rows:
        if row.day in sums:
            sums[row.day] += row.cost_nano_usd
    return sums


@dataclass(frozen=True)
class Projection:
    """What the month is going to cost.

    Attributes:
        month: its first day.
        spent: booked so far this month, nano-USD.
        pace: mean of the full days before today that are known, at most a week; nano-USD a day.
        pace_days: how many days that is; 0: nothing is known, and nothing is projected.
        days_left: days from tomorrow to the month's end.
        expected: at this pace, the whole month; None where no pace is known.
    """

    month: date
    spent: int
    pace: int
    pace_days: int
    days_left: int
    expected: int | None


def project(history: History) -> Projection:
    """The month's cost, if every day to come is as the mean of the last full days.

    What is left of today counts as the pace less what today has cost already, if positive.
    """
    today = history.today
    month = today.replace(day=1)
    spent = sum(row.cost_nano_usd for row in history.since(month))
    left = monthrange(today.year, today.month)[1] - today.day
    first = history.first_day
    known = 0 if first is None else min((today - first).days, PACE_DAYS)
    if known == 0:
        return Projection(month, spent, 0, 0, left, None)
    days = cost_by_day(history.spending, today - timedelta(days=known), today - timedelta(days=1))
    pace = sum(days.values()) // known
    today_so_far = cost_by_day(history.spending, today, today)[today]
    rest_of_today = max(pace - today_so_far, 0)
    expected = spent + rest_of_today + pace * left
    return Projection(month, spent, pace, known, left, expected)
