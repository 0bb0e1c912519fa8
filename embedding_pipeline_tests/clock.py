"""A clock that tests move: hours of waiting pass in no time, in the right order."""

import asyncio
import heapq

TURNS_BEFORE_A_JUMP = 8
"""Turns of the loop a sleeper gives to others before time moves, so that tasks which are
ready to run first run, and shorter sleeps that start now wake up earlier."""


class FakeClock:
    """Implements ``embedding_pipeline.clock.Clock`` without waiting.

    A sleep yields to the loop; when its deadline is the earliest of all sleepers, time
    jumps there. Sleepers therefore wake in the order of their deadlines, as in real time.

    Attributes:
        sleeps: every duration that was asked for, in order.
    """

    def __init__(self, start: float = 1_790_000_000.0) -> None:
        self._start = start
        self._elapsed = 0.0
        self._deadlines: list[tuple[float, int]] = []
        self.sleeps: list[float] = []

    @property
    def elapsed(self) -> float:
        """Seconds of fake time since the clock was made."""
        return self._elapsed

    def now(self) -> float:
        return self._start + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass without anybody sleeping."""
        self._elapsed += max(0.0, seconds)

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        ticket = (self._elapsed + max(0.0, seconds), len(self.sleeps))
        heapq.heappush(self._deadlines, ticket)
        try:
            await self._wake_at(ticket)
        finally:
            self._deadlines.remove(ticket)
            heapq.heapify(self._deadlines)

    async def _wake_at(self, ticket: tuple[float, int]) -> None:
        turns = 0
        while True:
            await asyncio.sleep(0)
            turns += 1
            if self._deadlines[0] == ticket and turns >= TURNS_BEFORE_A_JUMP:
                self._elapsed = max(self._elapsed, ticket[0])
                return
            if self._elapsed > ticket[0]:
                return
