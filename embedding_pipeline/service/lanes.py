"""Who goes next when more requests want out than may be out.

Belongs here: the order of waiting callers. ``pick`` decides, ``Lanes`` acts.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from embedding_pipeline.clock import Clock
from embedding_pipeline.records import Priority

AGEING_SECONDS: Final = 5.0
"""Waiting this long counts as much as one step of priority: bulk work overtakes fresh
urgent calls after twice this time, so nothing starves."""

URGENT_SLOTS: Final = 8
"""One slot in so many is for urgent calls alone: bulk work that waits for permits of the rate
limit holds its slots meanwhile."""

_RANK: Final = {Priority.URGENT: 0, Priority.NORMAL: 1, Priority.BULK: 2}


@dataclass(frozen=True)
class Waiting:
    """One caller in line."""

    priority: Priority
    since: float
    number: int


def rank(waiting: Waiting, now: float) -> tuple[float, int]:
    """Smaller goes first: priority less what waiting has earned, then order of arrival."""
    return _RANK[waiting.priority] - (now - waiting.since) / AGEING_SECONDS, waiting.number


def pick(waiting: Sequence[Waiting], now: float) -> int:
    """The index of who goes next."""
    return min(range(len(waiting)), key=lambda i: rank(waiting[i], now))


@dataclass(eq=False)
class _Ticket:
    waiting: Waiting
    turn: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Lanes:
    """At most ``slots`` callers inside at a time; the rest wait in order of ``rank``."""

    def __init__(self, slots: int, clock: Clock) -> None:
        self._free = slots
        self._free_for_others = slots - (max(1, slots // URGENT_SLOTS) if slots >= 4 else 0)
        self._clock = clock
        self._line: list[_Ticket] = []
        self._count = 0

    @asynccontextmanager
    async def slot(self, priority: Priority) -> AsyncIterator[None]:
        """Hold one of the slots."""
        await self._enter(priority)
        try:
            yield
        finally:
            self._leave(priority)

    async def _enter(self, priority: Priority) -> None:
        if self._take(priority):
            return
        self._count += 1
        ticket = _Ticket(Waiting(priority, self._clock.monotonic(), self._count))
        self._line.append(ticket)
        try:
            await ticket.turn
        except asyncio.CancelledError:
            if ticket in self._line:
                self._line.remove(ticket)
            if not ticket.turn.cancelled():  # handed over in the same instant: pass it on
                self._leave(priority)
            raise

    def _take(self, priority: Priority) -> bool:
        if not self._may_enter(priority):
            return False
        self._free -= 1
        self._free_for_others -= priority is not Priority.URGENT
        return True

    def _may_enter(self, priority: Priority) -> bool:
        return self._free > 0 and (priority is Priority.URGENT or self._free_for_others > 0)

    def _leave(self, priority: Priority) -> None:
        self._free += 1
        self._free_for_others += priority is not Priority.URGENT
        # A caller that was cancelled and has not run since still stands in line.
        self._line = [ticket for ticket in self._line if not ticket.turn.done()]
        admissible = [t for t in self._line if self._may_enter(t.waiting.priority)]
        if not admissible:
            return
        now = self._clock.monotonic()
        ticket = admissible[pick([t.waiting for t in admissible], now)]
        self._line.remove(ticket)
        self._take(ticket.waiting.priority)
        ticket.turn.set_result(None)
