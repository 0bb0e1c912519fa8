"""Conservation: what became of every chunk of a day, and of nothing else.

Belongs here: the account of one day, from its files and those of the days its duplicates
lead to. Does not belong here: the other checks (``checks``), or repairing anything.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.pipeline.reports import CheckVerdict
from embedding_pipeline.vectors.datasets import Datasets, EmbeddingsFile
from embedding_pipeline.vectors.fan_out import NO_LINKS, links_in, resolved
from embedding_pipeline.vectors.partition import PartitionFile

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

NAMED: Final = 10
"""How many ids a verdict names."""

_ROW: Final = ("chunk_id", "content_hash")
_ENDS: Final = ("representative_id", "representative_date", "vector_id", "vector_date")
_NO_COPIES: Final = pa.schema(
    [("exact", pa.bool_()), *((name, pa.string()) for name in (*_ROW, *_ENDS))]
).empty_table()


def account_for(
    datasets: Datasets,
    file: EmbeddingsFile,
    quarantined: Set[str],
    deferred: Set[str],
    earlier: Mapping[str, Set[str]],
    copies: pa.Table | None = None,
) -> CheckVerdict:
    """See ``checks.every_chunk_accounted_for``; ``file`` is the day's, at any dimensions.

    ``copies`` are the day's (``copies_of``), where they are known. Raises DataError.
    """
    partition = file.day
    copies = copies_of(datasets, partition) if copies is None else copies
    books = {partition: _read_books(datasets, file, quarantined, deferred)}
    for day in vector_days(copies):
        other = datasets.embeddings(file.space, day)
        if day != partition and other.exists():
            books[day] = _read_books(datasets, other, earlier.get(day, frozenset()), deferred)
    account = _balance(books, copies, partition)
    return _verdict(account, file)


def representative_days(datasets: Datasets, partition: str) -> list[str]:
    """The other days on which copies of ``partition`` have their vectors. Raises DataError."""
    return [day for day in vector_days(copies_of(datasets, partition)) if day != partition]


def vector_days(copies: pa.Table) -> list[str]:
    """The days on which ``copies`` have their vectors."""
    return _days_in(copies, "vector_date")


def copies_of(datasets: Datasets, day: str) -> pa.Table:
    """The copies of a day: whose they are, who has their vector, the hash they must have.

    The hash is that of the representative by now, where the copy is an exact one; "" where
    it is not, and null where the representative is gone. Raises DataError.
    """
    links = links_in(datasets.duplicate_chunks(day))
    if not links.num_rows:
        return _NO_COPIES
    ends = resolved(links, day, lambda earlier: _links_or_none(datasets, earlier))
    for name in ("id", "date"):
        links = links.append_column(f"vector_{name}", ends[f"representative_{name}"])
    hashes = pa.nulls(links.num_rows, pa.string())
    for date in _days_in(links, "representative_date"):
        raw = _table(datasets.raw_chunks(date), _ROW)
        found = pc.index_in(links["representative_id"], raw["chunk_id"])
        here = pc.equal(links["representative_date"], date)
        hashes = pc.if_else(here, raw["content_hash"].take(found), hashes)
    wanted = pc.if_else(pc.or_(links["exact"], pc.is_null(hashes)), hashes, "")
    return links.append_column("content_hash", wanted)


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
    """The sums of one day, the ids that spoil them, and how many wait for which days."""

    chunks_in: int
    embedded: int
    duplicate: int
    quarantined: int
    deferred: int
    missing: Sequence[str]
    unexpected: Sequence[str]
    waiting: int
    unmade: Sequence[str]


def _links_or_none(datasets: Datasets, day: str) -> pa.Table:
    """The links of a day; none where it was not deduplicated yet."""
    file = datasets.duplicate_chunks(day)
    return links_in(file) if file.exists() else NO_LINKS


def _days_in(copies: pa.Table, column: str) -> list[str]:
    days: list[str] = sorted(pc.unique(copies[column]).to_pylist())
    return days


def _read_books(
    datasets: Datasets, file: EmbeddingsFile, quarantined: Set[str], deferred: Set[str]
) -> _Books:
    raw = _table(datasets.raw_chunks(file.day), _ROW)
    vectors = _table(file.stored(), _ROW)
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
    waits = ~np.isin(copies["vector_date"].to_numpy(), list(books))
    stands = known & _unchanged(copies, own, rows) & (waits | _represented(books, copies))
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
        waiting=int(waits.sum()),
        unmade=_days_in(copies.filter(pa.array(waits)), "vector_date"),
    )


def _unchanged(copies: pa.Table, own: _Books, rows: Rows) -> Mask:
    """Which of ``copies`` have a representative still, and its very text if they are exact."""
    wanted = copies["content_hash"]
    same = _equal(pc.fill_null(wanted, "gone"), own.hashes.take(np.maximum(rows, 0)))
    return same | _equal(pc.fill_null(wanted, "gone"), "")


def _represented(books: Mapping[str, _Books], copies: pa.Table) -> Mask:
    """Which of ``copies`` lead to a chunk that is embedded or explained."""
    fine = np.zeros(copies.num_rows, dtype=np.bool_)
    for day, book in books.items():
        found, known = _find(copies["vector_id"], book.ids)
        here = known & _equal(copies["vector_date"], day)
        fine[here] = book.explained[found[here]]
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
    if not account.missing and not account.unexpected:
        return _well(account, figures)
    names = [*account.missing, *account.unexpected]
    figures |= {"examples": few(names, len(names))}
    problem = (
        f"{len(account.missing)} of {account.chunks_in} chunks of {file.day} are missing from "
        f"{file.name} without a reason, {len(account.unexpected)} entries are unexpected "
        f"({figures['examples']})"
    )
    return CheckVerdict(False, f"{problem}; {file.remedy}", figures)


def _well(account: _Account, figures: Mapping[str, int | float | str]) -> CheckVerdict:
    """The verdict when no chunk is missing; some may be waited for."""
    if account.deferred:
        return CheckVerdict(
            False,
            f"{account.deferred} of {account.chunks_in} chunks are deferred: they have no vector "
            "yet. The next run of this day embeds them, once the provider answers, the budget has "
            "room and their batches are in; recovery_sensor and batch_api_sensor start it. See: "
            "embedding-pipeline failed deferred",
            figures,
            blocking=False,
        )
    fine = f"All {account.chunks_in} chunks are accounted for"
    if not account.waiting:
        return CheckVerdict(True, f"{fine}.", figures)
    waiting = f"{account.waiting} copies wait for the vectors of {', '.join(account.unmade)}"
    remedy = f"embedding-pipeline backfill --start {account.unmade[0]} --end {account.unmade[-1]}"
    described = f"{fine}, but {waiting}; make them with: {remedy}"
    return CheckVerdict(False, described, {**figures, "waiting": account.waiting}, blocking=False)


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


def few(ids: Sequence[str], total: int) -> str:
    """The first few ids for a person to look up."""
    more = f" and {total - NAMED} more" if total > NAMED else ""
    return ", ".join(ids[:NAMED]) + more
