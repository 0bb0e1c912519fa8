"""Time as an argument.

Belongs here: the one interface through which the core reads time and sleeps.
Nothing else in the core calls ``time`` or ``asyncio.sleep``.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the core knows of time. All instants are seconds since the epoch, UTC."""

    def now(self) -> float:
        """Wall-clock time in seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps back; only differences mean anything."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the caller for ``seconds``."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def utc(instant: float) -> datetime:
    """An aware datetime for an instant in seconds since the epoch."""
    return datetime.fromtimestamp(instant, tz=UTC)
