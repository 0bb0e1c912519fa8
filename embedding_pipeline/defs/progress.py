"""Saying how far a run is, at a bounded rate.

Belongs here: when a line is due and how it reads. Does not belong here: counting
(``service``), or drawing a bar (``cli``).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from embedding_pipeline.pipeline.words import duration

if TYPE_CHECKING:
    from embedding_pipeline.service.work import Progress

EVERY_SECONDS: Final = 10.0
EVERY_SHARE: Final = 0.05
WARMED_UP: Final = 5.0
"""Seconds before a pace means anything: what is cached is done at once."""


class ProgressLog:
    """Passes on a line every ten seconds or every twentieth of the way, whichever is first."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: Progress | None = None

    def __call__(self, progress: "Progress") -> None:
        if is_due(self._last, progress):
            self._last = progress
            self._say(line(progress))


def is_due(last: "Progress | None", now: "Progress") -> bool:
    """Whether ``now`` is far enough from what was said last; the end always is."""
    if last is None or now.done == now.total:
        return last is None or now.done > last.done
    further = (now.done - last.done) / now.total if now.total else 0.0
    return now.seconds - last.seconds >= EVERY_SECONDS or further >= EVERY_SHARE


def line(progress: "Progress") -> str:
    """Done, total, pace, money and time left, in one line."""
    parts = [_share(progress), f"{progress.tokens_per_second:,.0f} tokens/s"]
    parts.append(f"${progress.cost_nano_usd / 1e9:,.4f} so far")
    if progress.seconds_left is not None and progress.seconds >= WARMED_UP:
        parts.append(f"about {duration(progress.seconds_left)} left")
    return ", ".join(parts)


def _share(progress: "Progress") -> str:
    if not progress.total:
        return f"{progress.done:,} chunks"
    return f"{progress.done:,} of {progress.total:,} chunks ({progress.done / progress.total:.0%})"
