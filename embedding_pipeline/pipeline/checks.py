"""Is what was written right? The checks on ``embeddings``, as plain calls.

Belongs here: judging one partition's files, streamed, and saying what to do about it.
Does not belong here: repairing anything, or Dagster (``defs`` wraps these).

A missing or damaged file is a failed verdict like any other. An empty partition passes.
"""

from collections.abc import Callable, Collection, Mapping, Set
from contextlib import ExitStack, suppress
from functools import wraps
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final, ParamSpec

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_pipeline.errors import DataError
from embedding_pipeline.pipeline.accounting import NAMED, account_for, few
from embedding_pipeline.pipeline.reports import CheckVerdict
from embedding_pipeline.records import Space
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline.vectors.datasets import Datasets, ServedEmbeddings

NORM_TOLERANCE: Final = 1e-3
"""How far from 1 a norm may be: float16 in the cache costs less than half of this."""

ACCOUNTED: Final = "every_chunk_accounted_for"

NAMES: Final = ("vector_dimension", "vectors_are_finite_unit_norm", "single_space", ACCOUNTED)

P = ParamSpec("P")
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


def _judged(check: Callable[P, CheckVerdict]) -> Callable[P, CheckVerdict]:
    """Data that cannot be read has failed the check; the error already has the remedy."""

    @wraps(check)
    def judge(*args: P.args, **kwargs: P.kwargs) -> CheckVerdict:
        try:
            return check(*args, **kwargs)
        except DataError as error:
            return CheckVerdict(passed=False, description=str(error))

    return judge


def all_checks(
    datasets: Datasets,
    space: Space,
    dimensions: int,
    partition: str,
    quarantined: Set[str] = frozenset(),
    deferred: Set[str] = frozenset(),
    *,
    earlier: Mapping[str, Set[str]] = MappingProxyType({}),
    copies: pa.Table | None = None,
    only: Collection[str] = NAMES,
) -> dict[str, CheckVerdict]:
    """Every check on one partition of ``embeddings``, by name, the cheapest first.

    All of them look at the same file, opened once. ``copies`` are the day's, where they are
    known (``accounting.copies_of``); ``only`` names the checks that are wanted.
    """
    file = datasets.served_embeddings(space, partition, dimensions)
    with ExitStack() as stack:
        with suppress(DataError):  # each check meets the error itself, and says it
            file = stack.enter_context(file.held())
        judges: dict[str, Callable[[], CheckVerdict]] = {
            "vector_dimension": lambda: vector_dimension(file),
            "vectors_are_finite_unit_norm": lambda: vectors_are_finite_unit_norm(file),
            "single_space": lambda: single_space(file),
            ACCOUNTED: lambda: _judged(account_for)(
                datasets, file, quarantined, deferred, earlier, copies
            ),
        }
        return {name: judge() for name, judge in judges.items() if name in only}


@_judged
def vector_dimension(file: ServedEmbeddings) -> CheckVerdict:
    """Every vector has the dimensions of the settings: in the metadata and in the column.

    Longer ones will do: readers are handed their view.
    """
    dimensions, found = file.dimensions, file.provenance().dimensions
    figures = {"dimensions": found, "expected": dimensions}
    if found < dimensions:
        problem = f"{file.name} has vectors of {found} dimensions, not {dimensions}"
        return CheckVerdict(False, f"{problem}; {file.remedy}", figures)
    if found > dimensions:
        said = f"All {file.rows()} vectors have {found} dimensions, and are read as {dimensions}."
        return CheckVerdict(True, said, figures)
    return CheckVerdict(True, f"All {file.rows()} vectors have {dimensions} dimensions.", figures)


@_judged
def vectors_are_finite_unit_norm(file: ServedEmbeddings) -> CheckVerdict:
    """No component is NaN or infinite, and every vector's length is 1."""
    norms = _Norms()
    for batch in file.iter_batches(["chunk_id", "vector"]):
        norms.add(batch)
    if norms.bad:
        problem = (
            f"{norms.bad} of {norms.seen} vectors of {file.name} are not finite or not of "
            f"length 1 ({few(norms.ids, norms.bad)})"
        )
        return CheckVerdict(False, f"{problem}; {file.remedy}", norms.figures)
    return CheckVerdict(True, f"All {norms.seen} vectors are finite, of length 1.", norms.figures)


@_judged
def single_space(file: ServedEmbeddings) -> CheckVerdict:
    """The file's own word, its folder and the settings name one space, and one length."""
    space, found = file.space, file.provenance().space
    folder = PurePosixPath(file.name).parent.name
    figures = {"space": str(found), "expected": str(space), "folder": folder}
    if found != space or folder != found.slug:
        problem = f"{file.name} holds vectors of {found}, not of {space}"
        return CheckVerdict(False, f"{problem}; {file.remedy}", figures)
    return CheckVerdict(True, f"All {file.rows()} vectors are of {space}.", figures)


@_judged
def every_chunk_accounted_for(
    datasets: Datasets,
    space: Space,
    partition: str,
    quarantined: Set[str] = frozenset(),
    deferred: Set[str] = frozenset(),
    *,
    earlier: Mapping[str, Set[str]] = MappingProxyType({}),
) -> CheckVerdict:
    """The books balance: ``chunks in = embedded + duplicate + quarantined + deferred``.

    Every id of ``raw_chunks`` must be exactly one of: embedded, from exactly the text it
    has now; a duplicate whose representative is embedded or explained; quarantined;
    deferred. And nothing else may be there. Holds ids and hashes of the day, no text.

    A representative may be of an earlier day. If that day's vectors are not made yet, the
    verdict says so and does not block: days may be made in any order.

    Args:
        datasets: where to look.
        space: the space whose vectors are judged, at whatever dimensions they have.
        partition: the day.
        quarantined: what the provider refuses, by content hash or by chunk id.
        deferred: what was left for later, likewise.
        earlier: by day, what is quarantined or deferred of ``representative_days``.
    """
    file = datasets.embeddings(space, partition)
    return account_for(datasets, file, quarantined, deferred, earlier)


class _Norms:
    """What the stream of vectors adds up to."""

    def __init__(self) -> None:
        self.seen = self.bad = 0
        self.least, self.most = np.inf, -np.inf
        self.ids: list[str] = []

    def add(self, batch: pa.RecordBatch) -> None:
        vectors = matrix_of(batch.column("vector"))
        with np.errstate(all="ignore"):  # an overflow is a finding, not a warning
            norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        wrong = np.flatnonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE))
        self.seen += len(norms)
        self.bad += len(wrong)
        shown = wrong[: NAMED - len(self.ids)]
        self.ids += batch.column("chunk_id").take(pa.array(shown)).to_pylist()
        finite = norms[np.isfinite(norms)]
        self.least = min(self.least, finite.min(initial=np.inf))
        self.most = max(self.most, finite.max(initial=-np.inf))

    @property
    def figures(self) -> Mapping[str, int | float]:
        counts = {"vectors": self.seen, "not_unit_or_finite": self.bad}
        if not np.isfinite(self.least):
            return counts
        return {**counts, "least_norm": float(self.least), "largest_norm": float(self.most)}
