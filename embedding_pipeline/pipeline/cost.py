"""``cost_summary``: where every chunk of a day came from, and what the day cost.

Belongs here: joining the chunks with the ledger, and the check that both agree. Does
not belong here: prices (the ledger keeps the one each entry was booked at).
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import reduce
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.errors import DataError
from embedding_pipeline.ledger import queries
from embedding_pipeline.ledger.queries import Balance, LedgerSum
from embedding_pipeline.pipeline.handfuls import Missing, missing_in
from embedding_pipeline.pipeline.origins import COLUMNS, Day, Payers, payers_of, read_days
from embedding_pipeline.pipeline.reports import CheckVerdict, CostReport
from embedding_pipeline.records import COST_SUMMARY, Kind
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import BATCH_ROWS

_EXPLAINED = ("chunks_explained", "chunks_quarantined", "chunks_deferred")
BILLED = (Kind.API, Kind.BATCH_API, Kind.LOCAL)

_WRITERS: Final = 4
"""Files written at the same time: each waits for the disk."""

Key = tuple[str, str, str, str]  # project, user, space, source


@dataclass
class _Figures:
    """The figures of one row of the summary, in the order of its columns."""

    chunks: int = 0
    input_tokens: int = 0
    cost_nano_usd: int = 0
    saved_nano_usd: int = 0
    requests: int = 0
    wait_seconds: float = 0.0


async def build_cost_summary(
    service: ServiceCore, datasets: Datasets, partition: str
) -> tuple[CostReport, pa.Table]:
    """``build_cost_summaries`` of one day. Raises DataError."""
    made = (await build_cost_summaries(service, datasets, [partition]))[partition]
    if isinstance(made, DataError):
        raise made
    return made


async def build_cost_summaries(
    service: ServiceCore, datasets: Datasets, partitions: Sequence[str]
) -> Mapping[str, tuple[CostReport, pa.Table] | DataError]:
    """Make ``cost_summary`` of some days, asking the store for all of them at once.

    A chunk is ``api`` (or ``local``) where its own project and day paid for the vector,
    ``cache`` where somebody else had, ``duplicate`` or ``derived`` as listed. Money is
    the ledger's: every attempt booked for this day, whenever it was made. ``input_tokens``
    are billed tokens for billed sources, and our own count for the others.

    ``saved_nano_usd`` is what would have been sent for a chunk and was not, at the price of
    now: copies of what has a vector, keys (or parts of a derived text) somebody else had
    paid for, and what the Batch API was cheaper than single requests.

    Args:
        service: an open service.
        datasets: where the chunks are and the summaries go.
        partitions: days; more than one only where they are small (``handfuls``).

    Returns:
        By day the totals and the table as written, or what is wrong with the day's datasets.
    """
    days = await read_days(service, datasets, partitions)
    made: dict[str, tuple[CostReport, pa.Table] | DataError]
    made = {name: day for name, day in days.items() if isinstance(day, DataError)}
    counts = [_Counting(day) for day in days.values() if isinstance(day, Day)]
    chunks = _Chunks(datasets, counts)
    while portion := await asyncio.to_thread(chunks.next):
        payers = await payers_of(service, [(count.day, batch) for count, batch in portion])
        for (count, batch), paid in zip(portion, payers, strict=True):
            _count(count.rows, batch, paid, count.day)
    made |= chunks.failed
    fine = [count for count in counts if count.day.partition not in made]
    names = [count.day.partition for count in fine]
    booked = await service.store.read(lambda c: queries.sums_of(c, names))
    parts = (fine[start::_WRITERS] for start in range(_WRITERS))
    written = (asyncio.to_thread(_finish, datasets, part, booked) for part in parts)
    for done in await asyncio.gather(*written):
        made |= done
    return {name: made[name] for name in partitions}


@dataclass(frozen=True)
class _Counting:
    """A day, and the rows of its summary so far."""

    day: Day
    rows: dict[Key, _Figures] = field(default_factory=dict)


class _Chunks:
    """The chunks of some days in portions; of small days several at a time. Blocking.

    Attributes:
        failed: the days whose chunks cannot be read, and why.
    """

    def __init__(self, datasets: Datasets, counts: Sequence[_Counting]) -> None:
        self.failed: dict[str, DataError] = {}
        self._batches = self._read(datasets, counts)

    def next(self) -> list[tuple[_Counting, pa.RecordBatch]]:
        """The next portion; empty at the end."""
        portion: list[tuple[_Counting, pa.RecordBatch]] = []
        rows = 0
        for count, batch in self._batches:
            portion.append((count, batch))
            rows += batch.num_rows
            if rows >= BATCH_ROWS:
                break
        return portion

    def _read(
        self, datasets: Datasets, counts: Sequence[_Counting]
    ) -> Iterator[tuple[_Counting, pa.RecordBatch]]:
        for count in counts:
            name = count.day.partition
            try:
                for batch in datasets.raw_chunks(name).iter_batches(count.day.columns):
                    yield count, batch
            except DataError as error:
                self.failed[name] = error


def _finish(
    datasets: Datasets, counts: Sequence[_Counting], booked: Mapping[str, Sequence[LedgerSum]]
) -> dict[str, tuple[CostReport, pa.Table] | DataError]:
    """Book what the ledger says of each day, and write its summary. Blocking."""
    made: dict[str, tuple[CostReport, pa.Table] | DataError] = {}
    for count in counts:
        name = count.day.partition
        for entry in booked[name]:
            _book(count.rows, entry, count.day)
        table = _table(count.rows)
        try:
            _write(datasets, name, table)
            made[name] = report_of(name, table), table
        except DataError as error:
            made[name] = error
    return made


def read_summaries(
    datasets: Datasets, partitions: Sequence[str]
) -> dict[str, pa.Table | DataError]:
    """``cost_summary`` of some days as it was written, or why it cannot be read. Blocking."""
    found: dict[str, pa.Table | DataError] = {}
    for day in partitions:
        try:
            found[day] = _read(datasets, day)
        except DataError as error:
            found[day] = error
    return found


async def ledger_balances(service: ServiceCore, datasets: Datasets, partition: str) -> CheckVerdict:
    """Every entry is tokens × price, the summary is the ledger, every chunk is explained."""
    summaries = await asyncio.to_thread(read_summaries, datasets, [partition])
    return (await ledgers_balance(service, datasets, summaries))[partition]


async def ledgers_balance(
    service: ServiceCore, datasets: Datasets, summaries: Mapping[str, pa.Table | DataError]
) -> Mapping[str, CheckVerdict]:
    """``ledger_balances`` of some days, asking once. Data that cannot be read has failed it."""
    partitions = list(summaries)
    missing = await missing_in(service, partitions)
    balances, sums = await service.store.read(
        lambda c: (queries.balances(c, partitions), queries.sums_of(c, partitions))
    )

    def judge() -> Mapping[str, CheckVerdict]:
        return {
            day: _balances(datasets, day, table, balances[day], sums[day], missing[day])
            for day, table in summaries.items()
        }

    return await asyncio.to_thread(judge)


def _balances(
    datasets: Datasets,
    partition: str,
    table: pa.Table | DataError,
    balance: Balance,
    entries: Sequence[LedgerSum],
    missing: Missing,
) -> CheckVerdict:
    try:
        if isinstance(table, DataError):
            raise table
        raw = datasets.raw_chunks(partition).rows()
    except DataError as error:
        return CheckVerdict(passed=False, description=str(error))
    figures = {
        "entries": balance.entries,
        "unbalanced_entries": balance.unbalanced,
        "ledger_nano_usd": sum(entry.cost_nano_usd for entry in entries),
        "summary_nano_usd": _sum(table, "cost_nano_usd"),
        "unknown_nano_usd": sum(entry.unknown_nano_usd for entry in entries),
        "chunks_in": raw,
        "chunks_explained": _sum(table, "chunks"),
        "chunks_quarantined": len(missing.quarantined),
        "chunks_deferred": len(missing.deferred - missing.quarantined),
    }
    return _verdict(partition, figures)


def _verdict(partition: str, figures: Mapping[str, int]) -> CheckVerdict:
    if figures["unbalanced_entries"]:
        problem = f"{figures['unbalanced_entries']} ledger entries are not tokens × price"
    elif figures["ledger_nano_usd"] != figures["summary_nano_usd"]:
        problem = "the summary is not the sum of the ledger; materialize cost_summary again"
    elif figures["chunks_in"] != sum(figures[name] for name in _EXPLAINED):
        problem = "some chunks have no source; materialize embeddings, then cost_summary"
    else:
        return CheckVerdict(True, "Every cent and every chunk is explained.", figures)
    return CheckVerdict(False, f"{partition}: {problem}.", figures)


def _sum(table: pa.Table, column: str) -> int:
    return int(pc.sum(table.column(column)).as_py() or 0)


def _count(rows: dict[Key, _Figures], batch: pa.RecordBatch, payers: Payers, day: Day) -> None:
    for chunk, name, tokens, project, user in zip(
        *(batch.column(column).to_pylist() for column in COLUMNS), strict=True
    ):
        paid = payers.paid.get(name)
        source = day.source(chunk, project, paid)
        if source is None:
            continue
        figures = rows.setdefault((project, user or "", day.space, source), _Figures())
        figures.chunks += 1
        if source not in BILLED:
            figures.input_tokens += tokens
        figures.saved_nano_usd += day.price * day.spared(
            chunk, source, tokens, payers.spared.get(chunk, 0)
        )


def _book(rows: dict[Key, _Figures], entry: LedgerSum, day: Day) -> None:
    account = entry.account
    figures = rows.setdefault((account.project, account.user, entry.space, entry.kind), _Figures())
    figures.input_tokens += entry.tokens
    figures.cost_nano_usd += entry.cost_nano_usd
    figures.requests += entry.requests
    figures.wait_seconds += entry.wait_ms / 1000
    if entry.kind is Kind.BATCH_API and entry.space == day.space:
        figures.saved_nano_usd += max(entry.tokens * day.price - entry.cost_nano_usd, 0)


def _table(rows: Mapping[Key, _Figures]) -> pa.Table:
    lines = [(*map(str, key), *astuple(rows[key])) for key in sorted(rows)]
    columns: Sequence[Sequence[object]] = list(zip(*lines, strict=True)) if lines else []
    arrays = [
        pa.array(columns[i] if columns else [], field.type) for i, field in enumerate(COST_SUMMARY)
    ]
    return pa.Table.from_arrays(arrays, schema=COST_SUMMARY)


def _write(datasets: Datasets, partition: str, table: pa.Table) -> None:
    with datasets.cost_summary(partition).writer() as writer:
        for batch in table.to_batches():
            writer.write(batch)


def _read(datasets: Datasets, partition: str) -> pa.Table:
    batches = list(datasets.cost_summary(partition).iter_batches())
    return pa.Table.from_batches(batches, COST_SUMMARY)


def report_of(partition: str, table: pa.Table) -> CostReport:
    """The totals of a day's summary."""
    billed = reduce(pc.or_, (pc.equal(table.column("source"), kind.value) for kind in BILLED))
    return CostReport(
        partition=partition,
        chunks=_sum(table, "chunks"),
        input_tokens=_sum(table.filter(billed), "input_tokens"),
        cost_nano_usd=_sum(table, "cost_nano_usd"),
        saved_nano_usd=_sum(table, "saved_nano_usd"),
        requests=_sum(table, "requests"),
        rows=table.num_rows,
    )
