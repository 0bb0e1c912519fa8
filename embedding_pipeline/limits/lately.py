"""How much a provider was seen to sustain in the last minute, permits or none.

Belongs here: the count of one process, second by second. Does not belong here: what follows
from it when a limit is met (``buckets``).
"""

from collections import deque
from typing import Final

SECONDS: Final = 60


class Lately:
    """Tokens and requests that were served in the last minute; one entry a second."""

    def __init__(self) -> None:
        self._served: deque[tuple[int, int, int]] = deque()

    def add(self, now: float, tokens: int) -> None:
        """A request of ``tokens`` was answered."""
        second, requests = int(now), 1
        if self._served and self._served[-1][0] == second:
            _, more, others = self._served.pop()
            tokens, requests = tokens + more, requests + others
        self._served.append((second, tokens, requests))
        self._forget(second)

    def sustained(self, now: float) -> tuple[int, int]:
        """Tokens and requests a minute that the provider's limit is at least.

        Its bucket holds a minute's worth, and was full at best: so what was served is no more
        than that minute and the time since then were worth.
        """
        self._forget(int(now))
        if not self._served:
            return 0, 0
        worth = SECONDS + min(int(now) + 1 - self._served[0][0], SECONDS)
        tokens = sum(entry[1] for entry in self._served)
        requests = sum(entry[2] for entry in self._served)
        return tokens * SECONDS // worth, requests * SECONDS // worth

    def _forget(self, second: int) -> None:
        while self._served and self._served[0][0] <= second - SECONDS:
            self._served.popleft()
