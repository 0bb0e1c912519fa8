"""Texts of one size for every client: 780 characters, each one distinct, made on the spot.

Belongs here: the corpus. Words come from Python's own help topics, so that token counts
are those of real prose.
"""

from collections.abc import Iterator
from itertools import cycle
from pydoc_data.topics import topics

CHARACTERS = 780


def texts(count: int, first: int = 0) -> Iterator[str]:
    """``count`` distinct texts, starting with number ``first``."""
    prose = " ".join(" ".join(topic.split()) for _, topic in sorted(topics.items()))
    starts = cycle(range(0, len(prose) - CHARACTERS, 97))
    for _ in range(first % 5000):
        next(starts)
    for number in range(first, first + count):
        start = next(starts)
        yield f"{number} {prose[start : start + CHARACTERS]}"[:CHARACTERS]
