"""What a foreign store holds at one place, before anybody judged it.

Belongs here: the value that readers yield, and turning numbers as they were written into a
vector. Does not belong here: a format, or whether a vector is any good (``judging``).
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from embedding_pipeline.errors import SourceError

Vector: TypeAlias = npt.NDArray[np.float32]

MOST_NUMBERS: Final = 65_536
"""No model has vectors of this length; what claims to is not decoded further."""

UNREADABLE: Final = "unreadable"
NO_TEXT: Final = "no_text"
NO_VECTOR: Final = "no_vector"


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of a foreign store.

    Attributes:
        position: which one it is, from 0: the row, or the text that was looked up.
        text: the exact text the vector was made from; None where that is not known.
        vector: float32, one-dimensional; None where there is none.
        model: what the store says made it, or "".
        problem: why it cannot be used, or "".
    """

    position: int
    text: str | None
    vector: Vector | None
    model: str = ""
    problem: str = ""


Reader: TypeAlias = Callable[[], Iterator[Found]]
"""Reads a store from its beginning. Blocking; raises SourceError where it cannot be read."""


def vector_of(numbers: Any) -> Vector | None:
    """A list of numbers as float32; None if it is none. What is too large becomes infinite."""
    if not isinstance(numbers, list) or not 0 < len(numbers) <= MOST_NUMBERS:
        return None
    try:
        with np.errstate(over="ignore"):
            wide = np.asarray(numbers, np.float64)
            return wide.astype(np.float32) if wide.ndim == 1 else None
    except (ValueError, TypeError, OverflowError):
        return None


def vector_in_json(content: bytes | str) -> Vector | None:
    """The vector that a JSON array of numbers is; None if it is none."""
    try:
        return vector_of(json.loads(content))
    except (ValueError, RecursionError):
        return None


def entry(position: int, text: Any, vector: Vector | None, model: str = "") -> Found:
    """An entry with text and vector, or the reason why it is none."""
    if not isinstance(text, str) or not text.strip():
        return Found(position, None, vector, model, NO_TEXT)
    return Found(position, text, vector, model, "" if vector is not None else NO_VECTOR)


def numbered(pairs: Iterable[tuple[Any, Vector | None, str]]) -> Iterator[Found]:
    """Entries from texts, vectors and models, in their order."""
    for position, (text, vector, model) in enumerate(pairs):
        yield entry(position, text, vector, model)


def unreachable(what: str, exc: Exception) -> SourceError:
    """The error of a store that cannot be read at all."""
    detail = str(exc).partition("\n")[0][:200]
    return SourceError(f"{what} cannot be read: {type(exc).__name__}: {detail}")
