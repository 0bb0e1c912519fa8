"""Which of the vectors found may stand for their text.

Belongs here: the checks, in one order, pure. Does not belong here: storing anything, or
asking a model.

What cannot be seen from a vector is which model made it, and from exactly which text: that
is what the sample is for, which is embedded anew and compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from embedding_pipeline.importing.found import Found
from embedding_pipeline.records import Digest, Vectors, digest_of

NORM_TOLERANCE: Final = 1e-3
EXAMPLES: Final = 10

OTHER_MODEL: Final = "other_model"
WRONG_DIMENSIONS: Final = "wrong_dimensions"
NOT_FINITE: Final = "not_finite"
NOT_UNIT: Final = "not_unit"
NOT_UTF8: Final = "not_utf8"
TOO_LONG: Final = "too_long"


@dataclass(frozen=True)
class Demands:
    """What a vector must be like to be taken.

    Attributes:
        dimensions: its length.
        models: names the store may give its model, lower case, without what stands before
            the last slash; empty for any.
        renormalise: a length other than 1 is mended instead of refused.
        newlines_as_spaces: the tool sent texts with line breaks replaced by spaces.
        too_long: for each text whether it could not have been sent whole.
    """

    dimensions: int
    models: frozenset[str] = frozenset()
    renormalise: bool = False
    newlines_as_spaces: bool = False
    too_long: Callable[[Sequence[str]], npt.NDArray[np.bool_]] | None = None


@dataclass(frozen=True)
class Judged:
    """What may be stored of a batch, row by row.

    Attributes:
        positions: where each stood.
        texts: exactly what was sent.
        digests: their keys.
        vectors: float32, shape ``(n, dimensions)``, of length 1.
    """

    positions: Sequence[int]
    texts: Sequence[str]
    digests: Sequence[Digest]
    vectors: Vectors

    def __len__(self) -> int:
        return len(self.digests)


@dataclass
class Refused:
    """What was left out: how often for each reason, and where the first few stood."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[int]] = field(default_factory=dict)

    def add(self, reason: str, position: int) -> None:
        """One more."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        shown = self.examples.setdefault(reason, [])
        if len(shown) < EXAMPLES:
            shown.append(position)


def judge(batch: Sequence[Found], demands: Demands, refused: Refused) -> Judged:
    """Check a batch; what is wrong is added to ``refused`` with its reason."""
    kept: list[tuple[int, str, Digest, npt.NDArray[np.float32]]] = []
    for found in batch:
        text = found.text or ""
        if demands.newlines_as_spaces:
            text = text.replace("\n", " ")
        problem, digest = found.problem or _problem(found, demands), _digest(text)
        if problem or digest is None or found.vector is None:
            refused.add(problem or NOT_UTF8, found.position)
        else:
            kept.append((found.position, text, digest, found.vector))
    if not kept:
        return Judged((), (), (), np.zeros((0, demands.dimensions), np.float32))
    positions, texts, digests, rows = zip(*kept, strict=True)
    return _measured(Judged(positions, texts, digests, np.stack(rows)), demands, refused)


def _problem(found: Found, demands: Demands) -> str:
    name = found.model.lower().rpartition("/")[2]
    if name and demands.models and name not in demands.models:
        return OTHER_MODEL
    if found.vector is not None and len(found.vector) != demands.dimensions:
        return WRONG_DIMENSIONS
    return ""


def _digest(text: str) -> Digest | None:
    try:
        return digest_of(text)
    except UnicodeEncodeError:
        return None


def _measured(judged: Judged, demands: Demands, refused: Refused) -> Judged:
    """The checks that are made of all rows at once: numbers, norms, length of the text."""
    vectors = judged.vectors
    finite = np.isfinite(vectors).all(axis=1)
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        unit = np.abs(norms - 1) <= NORM_TOLERANCE
        if demands.renormalise:
            usable = (norms > 0) & np.isfinite(norms)
            vectors = np.where((usable & ~unit)[:, None], vectors / norms[:, None], vectors).astype(
                np.float32
            )
            unit |= usable
    short = np.ones(len(judged), np.bool_)
    if demands.too_long is not None:
        short = ~demands.too_long(judged.texts)
    for reason, good in ((NOT_FINITE, finite), (NOT_UNIT, unit | ~finite), (TOO_LONG, short)):
        for row in np.flatnonzero(~good).tolist():
            if reason != TOO_LONG or (finite & unit)[row]:
                refused.add(reason, judged.positions[row])
    rows = np.flatnonzero(finite & unit & short)
    return _taken(judged, vectors, rows)


def _taken(judged: Judged, vectors: Vectors, rows: npt.NDArray[np.intp]) -> Judged:
    listed = rows.tolist()
    return Judged(
        [judged.positions[row] for row in listed],
        [judged.texts[row] for row in listed],
        [judged.digests[row] for row in listed],
        vectors[rows],
    )
