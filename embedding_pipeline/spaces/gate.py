"""May a new space take the old one's place? Statistics over vectors of the same chunks. Pure.

Belongs here: the figures, the thresholds they are held against, and the report. Does not
belong here: which chunks are compared (``sampling``), or switching.

Two spaces cannot be compared vector by vector, only by who is near whom. Figures:

- overlap: mean share of a chunk's ``k`` nearest in the old space that are among its ``k``
  nearest in the new one. Good models differ in it, so its bound is low.
- close pairs: whether a nearest neighbour that stands out in the old space is found in the
  new one. On these good models agree.
- new pairs: the other way about. A space that is blurred evenly, and has none of the other
  marks, is full of near pairs that the old space knows nothing of.
- isolated: chunks no nearer to any other than random vectors would be.
- self-retrieval: share of chunks that find themselves first. Equal or broken vectors fail.
- document neighbours: how often a chunk's nearest is of the same document, new against
  old: recall, without labels. It is held against the old space's own figure.
- norms and duplicate vectors: what no good model produces.

Where the old space itself is at the level of chance, its neighbours mean nothing, and the
new space is not held against them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import Vectors
from embedding_pipeline.spaces.config import GateConfig

NORM_TOLERANCE: Final = 1e-3
"""As in the check ``vectors_are_finite_unit_norm``."""

FEW: Final = 10
"""Chunks below which neighbours mean nothing, and documents below which theirs do not."""

CLOSE: Final = 0.25
"""Share of the chunks that the close pairs are taken from."""

ABOVE_CHANCE: Final = 1.25
"""How much nearer than the nearest of random vectors a neighbour has to be to mean anything."""

_BLOCK: Final = 512
_TIE: Final = 1e-6

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """The same chunks in two spaces.

    Attributes:
        old: float32, shape ``(n, d_old)``; None when there is no old space to compare with.
        new: float32, shape ``(n, d_new)``, of the same chunks in the same order.
        texts: which rows have one text: equal numbers mean equal text.
        documents: which rows are of one document, likewise.
    """

    old: Vectors | None
    new: Vectors
    texts: Rows
    documents: Rows

    def __post_init__(self) -> None:
        sizes = {len(self.new), len(self.texts), len(self.documents)}
        sizes |= {len(self.old)} if self.old is not None else set()
        if len(sizes) != 1:
            raise DataError(f"a sample of two spaces has rows of different number: {sizes}")


@dataclass(frozen=True)
class Figure:
    """One statistic, the old space's where it has one, and the bound on the new one's."""

    name: str
    new: float
    old: float | None
    bound: float | None
    at_least: bool
    meaning: str

    @property
    def passed(self) -> bool:
        """Whether it keeps its bound; a figure without one is there to be looked at."""
        if self.bound is None:
            return True
        return self.new >= self.bound if self.at_least else self.new <= self.bound

    @property
    def asked(self) -> str:
        """The bound in words."""
        if self.bound is None:
            return "–"
        return f"{'≥' if self.at_least else '≤'} {self.bound:.3g}"


@dataclass(frozen=True)
class GateReport:
    """What the gate found.

    Attributes:
        old: the space that is active.
        new: the one that wants to be.
        chunks: how many were compared.
        k: how many neighbours counted.
        figures: the statistics.
        overlaps: for ``0 … k`` kept neighbours, the number of chunks; for the plot.
    """

    old: str
    new: str
    chunks: int
    k: int
    figures: tuple[Figure, ...]
    overlaps: tuple[int, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every bound is kept."""
        return all(figure.passed for figure in self.figures)

    @property
    def reasons(self) -> list[str]:
        """The bounds that are not kept."""
        return [
            f"{figure.name} is {figure.new:.3f}, asked for is {figure.asked} ({figure.meaning})"
            for figure in self.figures
            if not figure.passed
        ]

    def as_tree(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        rows = [
            {**asdict(figure), "passed": figure.passed, "asked": figure.asked}
            for figure in self.figures
        ]
        return {**asdict(self), "figures": rows, "passed": self.passed, "reasons": self.reasons}


def judge(sample: Sample, config: GateConfig, *, old: str = "", new: str = "") -> GateReport:
    """Hold a sample against the thresholds."""
    figures = [*_own_figures(sample, config)]
    overlaps: tuple[int, ...] = ()
    few = max(1, min(config.k, len(sample.new) // 10))
    if len(sample.new) >= FEW:
        found = _neighbours(sample.new, few, sample.texts)
        before = None if sample.old is None else _neighbours(sample.old, few, sample.texts)
        figures.append(_self_retrieval(sample, config))
        figures.append(_isolated(found, before, config))
        figures += _documents(sample, found, before, config)
        if before is not None and int((~before.isolated).sum()) >= FEW:
            kept = _kept(found, before)[~before.isolated]
            overlaps = tuple(int(n) for n in np.bincount(kept, minlength=few + 1))
            figures += [
                _overlap(kept, few, config),
                _close_pairs(found, before, config),
                _new_pairs(found, before, config),
            ]
    return GateReport(old, new, len(sample.new), few, tuple(figures), overlaps)


def _own_figures(sample: Sample, config: GateConfig) -> Sequence[Figure]:
    return (
        Figure(
            "bad_norms",
            _bad_norms(sample.new),
            None if sample.old is None else _bad_norms(sample.old),
            config.max_bad_norms,
            False,
            "share of vectors that are not finite or not of length one",
        ),
        Figure(
            "duplicate_vectors",
            _duplicates(sample.new, sample.texts),
            None if sample.old is None else _duplicates(sample.old, sample.texts),
            config.max_duplicates,
            False,
            "share of vectors that another text has as well",
        ),
    )


def _bad_norms(vectors: Vectors) -> float:
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return float(np.mean(~(np.abs(norms - 1) <= NORM_TOLERANCE))) if len(vectors) else 0.0


def _duplicates(vectors: Vectors, texts: Rows) -> float:
    """Share of the distinct texts whose vector another text has, to the last bit."""
    _, first = np.unique(texts, return_index=True)
    rows = np.ascontiguousarray(vectors[first]).view(f"V{vectors.shape[1] * 4}")
    _, counts = np.unique(rows.ravel(), return_counts=True)
    return float(counts[counts > 1].sum() / len(first)) if len(first) else 0.0


def _usable(vectors: Vectors) -> Vectors:
    """Vectors with a direction; what has none is near to nothing."""
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        unit = vectors / norms[:, None]
    usable: Vectors = np.nan_to_num(unit, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)
    return usable


@dataclass(frozen=True)
class _Neighbours:
    """Who is near whom in one space.

    Attributes:
        rows: the rows nearest to each, nearest first, equal texts aside: shape ``(n, k)``;
            -1 where there is none.
        standing_out: by how much the nearest is nearer than the average chunk.
        isolated: whether the nearest is no nearer than chance brings random vectors.
    """

    rows: Rows
    standing_out: npt.NDArray[np.float32]
    isolated: npt.NDArray[np.bool_]


def _neighbours(vectors: Vectors, k: int, texts: Rows) -> _Neighbours:
    unit = _usable(vectors)
    size = len(unit)
    rows, first = np.empty((size, k), np.int64), np.empty(size, np.float32)
    average = unit @ unit.mean(axis=0)
    for start in range(0, size, _BLOCK):
        block = slice(start, start + _BLOCK)
        scores = unit[block] @ unit.T
        scores[texts[block, None] == texts[None, :]] = -np.inf
        found = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        lines = np.arange(len(found))[:, None]
        found = found[lines, np.argsort(-scores[lines, found], axis=1, kind="stable")]
        rows[block] = np.where(np.isfinite(scores[lines, found]), found, -1)
        first[block] = scores[lines[:, 0], found[:, 0]]
    return _Neighbours(rows, first - average, first < ABOVE_CHANCE * _chance(*unit.shape))


def _chance(size: int, dimensions: int) -> float:
    """About the largest cosine of a unit vector with ``size`` random ones."""
    return float(np.sqrt(2 * np.log(max(size, 2)) / dimensions))


def _kept(found: _Neighbours, before: _Neighbours) -> Rows:
    """For each chunk how many of its old neighbours are among the new ones."""
    old = before.rows[:, None, :]
    kept: Rows = ((found.rows[:, :, None] == old) & (old >= 0)).any(axis=1).sum(axis=1)
    return kept


def _overlap(kept: Rows, k: int, config: GateConfig) -> Figure:
    return Figure(
        "overlap",
        float(kept.mean() / k),
        None,
        config.min_overlap,
        True,
        f"mean share of the {k} nearest in the old space that are so in the new one",
    )


def _close_pairs(found: _Neighbours, before: _Neighbours, config: GateConfig) -> Figure:
    return Figure(
        "close_pairs",
        _agreement(before, found, ~before.isolated),
        None,
        config.min_close_pairs,
        True,
        "share of the old space's closest pairs that are near each other in the new one",
    )


def _new_pairs(found: _Neighbours, before: _Neighbours, config: GateConfig) -> Figure:
    return Figure(
        "new_pairs",
        _agreement(found, before, ~before.isolated),
        None,
        config.min_new_pairs,
        True,
        "share of the new space's closest pairs that were near each other in the old one",
    )


def _agreement(one: _Neighbours, other: _Neighbours, usable: npt.NDArray[np.bool_]) -> float:
    """Of the chunks whose nearest stands out most in ``one``: how many have it in ``other``."""
    order = np.argsort(-np.where(usable, one.standing_out, -np.inf), kind="stable")
    close = order[: max(FEW, int(CLOSE * int(usable.sum())))]
    return float((other.rows[close] == one.rows[close, :1]).any(axis=1).mean())


def _isolated(found: _Neighbours, before: _Neighbours | None, config: GateConfig) -> Figure:
    was = 0.0 if before is None else float(before.isolated.mean())
    return Figure(
        "isolated",
        float(found.isolated.mean()),
        None if before is None else was,
        None if before is None else was + config.max_isolated,
        False,
        "share of chunks that are no nearer to any other than random vectors are",
    )


def _self_retrieval(sample: Sample, config: GateConfig) -> Figure:
    return Figure(
        "self_retrieval",
        _finds_itself(sample.new, sample.texts),
        None if sample.old is None else _finds_itself(sample.old, sample.texts),
        config.min_self_retrieval,
        True,
        "share of chunks that are their own nearest",
    )


def _finds_itself(vectors: Vectors, texts: Rows) -> float:
    """Whether nothing but an equal text is as near to a chunk as the chunk itself."""
    unit = _usable(vectors)
    found = 0
    for start in range(0, len(unit), _BLOCK):
        block = slice(start, start + _BLOCK)
        scores = unit[block] @ unit.T
        own = scores[np.arange(len(scores)), np.arange(start, start + len(scores))]
        scores[texts[block, None] == texts[None, :]] = -np.inf
        found += int((own > scores.max(axis=1) + _TIE).sum())
    return found / len(unit)


def _documents(
    sample: Sample, found: _Neighbours, before: _Neighbours | None, config: GateConfig
) -> Sequence[Figure]:
    """How often the nearest other chunk is of the same document, where there are such."""
    _, inverse, counts = np.unique(sample.documents, return_inverse=True, return_counts=True)
    can = counts[inverse] > 1
    if int(can.sum()) < FEW:
        return ()
    now = _same_document(found.rows, sample.documents, can)
    was = None if before is None else _same_document(before.rows, sample.documents, can)
    return (
        Figure(
            "document_neighbours",
            now,
            was,
            None if was is None else was * config.min_document_ratio,
            True,
            "share of chunks whose nearest other chunk is of the same document",
        ),
    )


def _same_document(nearest: Rows, documents: Rows, can: npt.NDArray[np.bool_]) -> float:
    first = nearest[:, 0]
    same = (first >= 0) & (documents[first] == documents)
    return float(same[can].mean())


def from_tree(tree: Mapping[str, Any]) -> GateReport:
    """The inverse of ``as_tree``."""
    names = ("name", "new", "old", "bound", "at_least", "meaning")
    figures = tuple(Figure(**{name: row[name] for name in names}) for row in tree["figures"])
    return GateReport(
        tree["old"], tree["new"], tree["chunks"], tree["k"], figures, tuple(tree["overlaps"])
    )
