"""Counting keys once and the requests they make, in a few bytes each.

Belongs here: the two running counts of a plan. Pure, no I/O.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from embedding_pipeline.planning.requests import RequestCaps, plan_requests
from embedding_pipeline.records import Digest

_RECENT: Final = 65_536
_AT_ONCE: Final = 16_384


class Fresh:
    """Tells whether a key is new, remembering 8 bytes of each.

    Two keys share their first 8 bytes with probability n² / 2⁶⁵: 3·10⁻⁸ for a million; one
    text would then be missing from the plan.
    """

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older: list[npt.NDArray[np.uint64]] = []

    def add(self, digest: Digest) -> bool:
        """Whether ``digest`` was not added before."""
        number = int.from_bytes(digest[:8])
        if number in self._recent or any(_holds(run, number) for run in self._older):
            return False
        self._recent.add(number)
        if len(self._recent) >= _RECENT:
            self._settle()
        return True

    def _settle(self) -> None:
        """Sorted runs of growing size, each at least twice the next: there are few of them."""
        run = np.sort(np.fromiter(self._recent, np.uint64, len(self._recent)))
        while self._older and len(self._older[-1]) < 2 * len(run):
            run = np.sort(np.concatenate([self._older.pop(), run]))
        self._older.append(run)
        self._recent.clear()


def _holds(run: npt.NDArray[np.uint64], number: int) -> bool:
    place = int(np.searchsorted(run, np.uint64(number)))
    return place < len(run) and int(run[place]) == number


class RequestCount:
    """How many requests a stream of texts makes, cut as a run cuts it."""

    def __init__(self, caps: RequestCaps, at_once: int = _AT_ONCE) -> None:
        self._caps = caps
        self._at_once = at_once
        self._pending: list[tuple[int, int]] = []
        self._planned = 0

    def add(self, tokens: int, estimate: int) -> None:
        """The next text."""
        self._pending.append((tokens, estimate))
        if len(self._pending) >= self._at_once:
            self._plan(final=False)

    def finish(self) -> int:
        """The number of requests of everything added."""
        self._plan(final=True)
        return self._planned

    def _plan(self, *, final: bool) -> None:
        tokens, estimates = zip(*self._pending, strict=True) if self._pending else ((), ())
        plans = plan_requests(tokens, estimates, self._caps, final=final)
        if plans:
            self._planned += len(plans)
            del self._pending[: plans[-1].stop]
