"""How often each misfortune befell a run of seeds, so that it cannot go hollow unnoticed.

Belongs here: the kinds, how many seeds of a hundred must have had each, and the comparison.
Pure. Does not belong here: noticing that one happened (``Machine.note``).
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

FEW: Final = 200
"""In fewer seeds than these a rare kind may be missing by chance."""

LEAST: Final[Mapping[str, float]] = {
    "killed": 15,
    "killed before a transaction": 1,
    "killed with a request out": 2,
    "stopped": 6,
    "stopped past its lease": 3,
    "interrupted": 5,
    "write refused": 15,
    "write kept and reported as failed": 6,
    "several processes": 50,
    "two models": 4,
    "two providers": 15,
    "budgets": 35,
    "work left for want of money": 12,
    "rate limits": 20,
    "over the rate limit": 1,
    "provider away": 12,
    "server error": 8,
    "overloaded": 5,
    "out of quota": 0.3,
    "text refused": 18,
    "reply lost": 8,
    "reply spoilt": 2,
    "reply too late": 0.5,
    "booked as unknown": 15,
}
"""Per cent of the seeds that must have had each kind."""


def take(stories: Iterable[Iterable[str]]) -> Counter[str]:
    """In how many stories each kind happened."""
    return Counter(kind for story in stories for kind in set(story))


def hollow(counted: Mapping[str, int], seeds: int) -> list[str]:
    """The kinds that happened too rarely; of a few seeds nothing is said."""
    if seeds < FEW:
        return []
    return [
        f"{kind}: {counted.get(kind, 0)} of {seeds} seeds, at least {percent} % are needed"
        for kind, percent in LEAST.items()
        if counted.get(kind, 0) * 100 < percent * seeds
    ]
