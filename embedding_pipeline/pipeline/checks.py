"""Is what was written right? The checks on ``embeddings``, as plain calls.

Belongs here: judging one partition's files, streamed, and saying what to do about it.
Does not belong here: repairing anything, or Dagster (``defs`` wraps these).

A missing or damaged file is a failed verdict like any other. An empty partition passes.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import wraps
from typing import Final, ParamSpec

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.errors import DataError
from embedding_pipeline.pipeline.reports import CheckVerdict
from embedding_pipeline.records import Space
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline.vectors.datasets import Datasets, EmbeddingsFile
from embedding_pipeline.vectors.partition import PartitionFile

NORM_TOLERANCE: Final = 1e-3
"""How far from 1 a norm may be: float16 in the cache costs less than half of this."""

NAMED: Final = 10
"""How many ids a verdict names."""

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
) -> dict[str, CheckVerdict]:
    """Every check on one partition of ``embeddings``, by name, the cheapest first."""
    of_file = (datasets, space, dimensions, partition)
    return {
        "vector_dimension": vector_dimension(*of_file),
        "vectors_are_finite_unit_norm": vectors_are_finite_unit_norm(*of_file),
        "single_space": single_space(*of_file),
        "every_chunk_accounted_for": every_chunk_accounted_for(
            datasets, space, partition, quarantined, deferred
        ),
    }


@_judged
def vector_dimension(
    datasets: Datasets, space: Space, dimensions: int, partition: str
) -> CheckVerdict:
    """Every vector has the dimensions of the settings: in the metadata and in the column."""
    file = datasets.embeddings(space, partition, dimensions)
    found = file.provenance().dimensions
    figures = {"dimensions": found, "expected": dimensions}
    if found != dimensions:
        problem = f"{file.name} has vectors of {found} dimensions, not {dimensions}"
        return CheckVerdict(False, f"{problem}; {file.remedy}", figures)
    return CheckVerdict(True, f"All {file.rows()} vectors have {dimensions} dimensions.", figures)


@_judged
def vectors_are_finite_unit_norm(
    datasets: Datasets, space: Space, dimensions: int, partition: str
) -> CheckVerdict:
    """No component is NaN or infinite, and every vector's length is 1."""
    file = datasets.embeddings(space, partition, dimensions)
    norms = _Norms()
    for batch in file.iter_batches(["chunk_id", "vector"]):
        norms.add(batch)
    if norms.bad:
        problem = (
            f"{norms.bad} of {norms.seen} vectors of {file.name} are not finite or not of "
            f"length 1 ({_name(norms.ids, norms.bad)})"
        )
        return CheckVerdict(False, f"{problem}; {file.remedy}", norms.figures)
    return CheckVerdict(True, f"All {norms.seen} vectors are finite, of length 1.", norms.figures)


@_judged
def single_space(datasets: Datasets, space: Space, dimensions: int, partition: str) -> CheckVerdict:
    """The file's own word, its folder and the settings name one space, and one length."""
    file = datasets.embeddings(space, partition, dimensions)
    found = file.provenance().space
    figures = {"space": str(found), "expected": str(space), "folder": file.path.parent.name}
    if found != space or file.path.parent.name != found.slug:
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
) -> CheckVerdict:
    """The books balance: ``chunks in = embedded + duplicate + quarantined + deferred``.

    Every id of ``raw_chunks`` must be exactly one of: embedded, from exactly the text it
    has now; a duplicate whose representative is embedded or explained; quarantined;
    deferred. And nothing else may be there. Holds ids and hashes of the day, no text.

    Args:
        datasets: where to look.
        space: the space whose vectors are judged, at whatever dimensions they have.
        partition: the day.
        quarantined: what the provider refuses, by content hash or by chunk id.
        deferred: what was left for later, likewise.
    """
    held = (quarantined, deferred)
    books = {partition: _read_books(datasets, space, partition, *held)}
    copies = _table(datasets.duplicate_chunks(partition), _COPY_COLUMNS)
    for day in pc.unique(copies["representative_date"]).to_pylist():
        if day not in books:
            books[day] = _read_books(datasets, space, day, *held)
    account = _balance(books, copies, partition)
    return _verdict(account, datasets.embeddings(space, partition))


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


_COPY_COLUMNS: Final = ("chunk_id", "representative_id", "representative_date", "method")


@dataclass(frozen=True)
class _Books:
    """One day's chunks and what became of them, row by row.

    Attributes:
        ids: chunk ids of ``raw_chunks``.
        hashes: content hashes of ``raw_chunks``.
        embedded: how often each has a vector made from its text.
        quarantined: which are refused by the provider.
        deferred: which were left for later.
        strays: ids with a vector that is of no chunk, or not of that chunk's text.
    """

    ids: pa.ChunkedArray
    hashes: pa.ChunkedArray
    embedded: Rows
    quarantined: Mask
    deferred: Mask
    strays: Sequence[str]

    @property
    def explained(self) -> Mask:
        """Which chunks can stand for others."""
        explained: Mask = (self.embedded == 1) | self.quarantined | self.deferred
        return explained


@dataclass(frozen=True)
class _Account:
    """The sums of one day, and the ids that spoil them."""

    chunks_in: int
    embedded: int
    duplicate: int
    quarantined: int
    deferred: int
    missing: Sequence[str]
    unexpected: Sequence[str]


def _read_books(
    datasets: Datasets, space: Space, day: str, quarantined: Set[str], deferred: Set[str]
) -> _Books:
    raw = _table(datasets.raw_chunks(day), ("chunk_id", "content_hash"))
    stored = datasets.embeddings(space, day).provenance().dimensions
    file = datasets.embeddings(space, day, stored)
    vectors = _table(file, ("chunk_id", "content_hash"))
    rows, known = _find(vectors["chunk_id"], raw["chunk_id"])
    right = known.copy()
    right[known] = _equal(
        vectors["content_hash"].filter(pa.array(known)), raw["content_hash"].take(rows[known])
    )
    return _Books(
        ids=raw["chunk_id"],
        hashes=raw["content_hash"],
        embedded=np.bincount(rows[right], minlength=raw.num_rows),
        quarantined=_among(raw, quarantined),
        deferred=_among(raw, deferred),
        strays=vectors["chunk_id"].filter(pa.array(~right)).to_pylist(),
    )


def _balance(books: Mapping[str, _Books], copies: pa.Table, day: str) -> _Account:
    """The account of ``day``, whose duplicates are ``copies``. Pure."""
    own = books[day]
    size = len(own.ids)
    rows, known = _find(copies["chunk_id"], own.ids)
    listed = np.bincount(rows[known], minlength=size)
    stands = known & _represented(books, copies, own, rows)
    covered = np.bincount(rows[stands], minlength=size) > 0
    nowhere = (own.embedded == 0) & (listed == 0)
    embedded = (own.embedded == 1) & (listed == 0)
    duplicate = (own.embedded == 0) & (listed == 1) & covered
    quarantined = nowhere & own.quarantined
    deferred = nowhere & own.deferred & ~own.quarantined
    twice = (own.embedded + listed > 1) | _repeated(own.ids)
    missing = ~(embedded | duplicate | quarantined | deferred | twice)
    foreign = copies["chunk_id"].filter(pa.array(~known)).to_pylist()
    return _Account(
        chunks_in=size,
        embedded=int((embedded & ~twice).sum()),
        duplicate=int((duplicate & ~twice).sum()),
        quarantined=int((quarantined & ~twice).sum()),
        deferred=int((deferred & ~twice).sum()),
        missing=_take(own.ids, missing),
        unexpected=[*own.strays, *foreign, *_take(own.ids, twice)],
    )


def _represented(books: Mapping[str, _Books], copies: pa.Table, own: _Books, rows: Rows) -> Mask:
    """Which of ``copies`` have a representative that is embedded or explained.

    An exact copy must also have its representative's text still.
    """
    fine = np.zeros(copies.num_rows, dtype=np.bool_)
    dates = copies["representative_date"]
    exact = _equal(copies["method"], "exact")
    for day, book in books.items():
        here = _equal(dates, day)
        found, known = _find(copies["representative_id"], book.ids)
        usable = here & known & (rows >= 0)
        same = np.zeros_like(usable)
        same[usable] = _equal(own.hashes.take(rows[usable]), book.hashes.take(found[usable]))
        explained = np.zeros_like(usable)
        explained[usable] = book.explained[found[usable]]
        fine |= explained & (same | ~exact)
    return fine


def _verdict(account: _Account, file: EmbeddingsFile) -> CheckVerdict:
    figures: dict[str, int | float | str] = {
        "chunks_in": account.chunks_in,
        "embedded": account.embedded,
        "duplicate": account.duplicate,
        "quarantined": account.quarantined,
        "deferred": account.deferred,
        "missing": len(account.missing),
        "unexpected": len(account.unexpected),
    }
    if not account.missing and not account.unexpected and account.deferred:
        return CheckVerdict(
            False,
            f"{account.deferred} of {account.chunks_in} chunks are deferred: they have no vector "
            "yet. The next run of this day embeds them, once there is room in the budget; "
            "see: embedding-pipeline budget",
            figures,
            blocking=False,
        )
    if not account.missing and not account.unexpected:
        return CheckVerdict(True, f"All {account.chunks_in} chunks are accounted for.", figures)
    names = [*account.missing, *account.unexpected]
    figures |= {"examples": _name(names, len(names))}
    problem = (
        f"{len(account.missing)} of {account.chunks_in} chunks of {file.day} are missing from "
        f"{file.name} without a reason, {len(account.unexpected)} entries are unexpected "
        f"({figures['examples']})"
    )
    return CheckVerdict(False, f"{problem}; {file.remedy}", figures)


def _table(file: PartitionFile, columns: Sequence[str]) -> pa.Table:
    """Some small columns of a whole partition."""
    schema = pa.schema([file.schema.field(name) for name in columns])
    return pa.Table.from_batches(file.iter_batches(columns), schema)


def _find(names: pa.ChunkedArray, ids: pa.ChunkedArray) -> tuple[Rows, Mask]:
    """For each of ``names`` its row in ``ids`` (-1 if it has none), and whether it has one."""
    found = pc.fill_null(pc.index_in(names, value_set=ids), -1).to_numpy().astype(np.int64)
    return found, found >= 0


def _among(raw: pa.Table, held: Set[str]) -> Mask:
    names = pa.array(sorted(held), pa.string())
    mask = [pc.is_in(raw[column], value_set=names) for column in ("chunk_id", "content_hash")]
    return np.asarray(pc.or_(*mask), dtype=np.bool_)


def _equal(left: pa.ChunkedArray, right: pa.ChunkedArray | str) -> Mask:
    return np.asarray(pc.equal(left, right), dtype=np.bool_)


def _repeated(ids: pa.ChunkedArray) -> Mask:
    """Every row whose id stands on an earlier row as well."""
    rows, _ = _find(ids, ids)
    repeated: Mask = rows != np.arange(len(rows))
    return repeated


def _take(ids: pa.ChunkedArray, mask: Mask) -> list[str]:
    names: list[str] = ids.filter(pa.array(mask)).to_pylist()
    return names


def _name(ids: Sequence[str], total: int) -> str:
    """The first few ids for a person to look up."""
    more = f" and {total - NAMED} more" if total > NAMED else ""
    return ", ".join(ids[:NAMED]) + more
