"""``cost_summary``: where every chunk of a day came from, and what the day cost.

Belongs here: joining the chunks with the ledger, and the check that both agree. Does
not belong here: prices (the ledger keeps the one each entry was booked at).
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from embedding_pipeline.cache import database
from embedding_pipeline.ledger import queries
from embedding_pipeline.ledger.queries import LedgerSum
from embedding_pipeline.pipeline.reports import CheckVerdict, CostReport
from embedding_pipeline.records import COST_SUMMARY, Digest, Kind
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.vectors.datasets import Datasets

BILLED = (Kind.API, Kind.BATCH_API, Kind.LOCAL)
_COLUMNS = ("chunk_id", "content_hash", "token_count", "project", "user")

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
    """Make ``cost_summary`` of one day.

    A chunk is ``api`` (or ``local``) where its own project and day paid for the vector,
    ``cache`` where somebody else had, ``duplicate`` or ``derived`` as listed. Money is
    the ledger's: every attempt booked for this day, whenever it was made. ``input_tokens``
    are billed tokens for billed sources, and our own count for the others.

    Returns:
        The totals, and the table as written.

    Raises:
        DataError: one of the day's datasets is missing or damaged.
    """
    held = await service.quarantined(partition)
    day = await asyncio.to_thread(_day, service, datasets, partition, held)
    rows: dict[Key, _Figures] = {}
    batches = datasets.raw_chunks(partition).iter_batches(_COLUMNS)
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        paid = await _payers(service, batch)
        _count(rows, batch, paid, day)
    for entry in await service.store.read(lambda c: queries.sums(c, partition=partition)):
        _book(rows, entry)
    table = _table(rows)
    await asyncio.to_thread(_write, datasets, partition, table)
    return _report(partition, table), table


async def ledger_balances(service: ServiceCore, datasets: Datasets, partition: str) -> CheckVerdict:
    """Every entry is tokens × price, the summary is the ledger, every chunk is explained."""
    balance = await service.store.read(lambda c: queries.balance(c, partition))
    entries = await service.store.read(lambda c: queries.sums(c, partition=partition))
    held = await service.quarantined(partition)
    table = await asyncio.to_thread(_read, datasets, partition)
    raw = await asyncio.to_thread(datasets.raw_chunks(partition).rows)
    figures = {
        "entries": balance.entries,
        "unbalanced_entries": balance.unbalanced,
        "ledger_nano_usd": sum(entry.cost_nano_usd for entry in entries),
        "summary_nano_usd": _sum(table, "cost_nano_usd"),
        "unknown_nano_usd": sum(entry.unknown_nano_usd for entry in entries),
        "chunks_in": raw,
        "chunks_explained": _sum(table, "chunks"),
        "chunks_quarantined": len(held),
    }
    return _verdict(partition, figures)


def _verdict(partition: str, figures: Mapping[str, int]) -> CheckVerdict:
    if figures["unbalanced_entries"]:
        problem = f"{figures['unbalanced_entries']} ledger entries are not tokens × price"
    elif figures["ledger_nano_usd"] != figures["summary_nano_usd"]:
        problem = "the summary is not the sum of the ledger; materialize cost_summary again"
    elif figures["chunks_in"] != figures["chunks_explained"] + figures["chunks_quarantined"]:
        problem = "some chunks have no source; materialize embeddings, then cost_summary"
    else:
        return CheckVerdict(True, "Every cent and every chunk is explained.", figures)
    return CheckVerdict(False, f"{partition}: {problem}.", figures)


def _sum(table: pa.Table, column: str) -> int:
    return int(pc.sum(table.column(column)).as_py() or 0)


@dataclass(frozen=True)
class _Day:
    """What decides the source of a day's chunks, the ledger aside."""

    partition: str
    space: str
    price: int
    held: frozenset[str]
    duplicates: frozenset[str]
    derived: frozenset[str]

    def source(self, chunk: str, project: str, paid: queries.Entry | None) -> Kind | None:
        """Where a chunk's vector came from; None when it has none."""
        if chunk in self.held:
            return None
        if chunk in self.duplicates:
            return Kind.DUPLICATE
        if chunk in self.derived:
            return Kind.DERIVED
        if paid is None:
            return None
        own = paid.account.partition == self.partition and paid.account.project == project
        return paid.kind if own else Kind.CACHE


def _day(service: ServiceCore, datasets: Datasets, partition: str, held: frozenset[str]) -> _Day:
    derived = datasets.derived_chunks(service.space, partition)
    return _Day(
        partition,
        str(service.space),
        service.price or 0,
        held,
        _ids(datasets.duplicate_chunks(partition).iter_batches(("chunk_id",))),
        _ids(derived.iter_batches(("chunk_id",))) if derived.exists() else frozenset(),
    )


def _ids(batches: Iterable[pa.RecordBatch]) -> frozenset[str]:
    return frozenset(name for batch in batches for name in batch.column(0).to_pylist())


async def _payers(service: ServiceCore, batch: pa.RecordBatch) -> dict[str, queries.Entry]:
    """For each content hash the ledger entry that paid for its vector, if there is one."""
    hashes = list(dict.fromkeys(batch.column("content_hash").to_pylist()))
    digests = [Digest(bytes.fromhex(name)) for name in hashes]
    number = service.space_id

    def work(connection: Connection) -> dict[str, queries.Entry]:
        paid = database.paid_by(connection, number, digests)
        entries = queries.entries(connection, sorted(set(paid.values())))
        return {digest.hex(): entries[entry] for digest, entry in paid.items() if entry in entries}

    return await service.store.read(work)


def _count(
    rows: dict[Key, _Figures], batch: pa.RecordBatch, paid: Mapping[str, queries.Entry], day: _Day
) -> None:
    for chunk, name, tokens, project, user in zip(
        *(batch.column(column).to_pylist() for column in _COLUMNS), strict=True
    ):
        source = day.source(chunk, project, paid.get(name))
        if source is None:
            continue
        figures = rows.setdefault((project, user or "", day.space, source), _Figures())
        figures.chunks += 1
        if source not in BILLED:
            figures.input_tokens += tokens
        if source in (Kind.CACHE, Kind.DUPLICATE):
            figures.saved_nano_usd += tokens * day.price


def _book(rows: dict[Key, _Figures], entry: LedgerSum) -> None:
    account = entry.account
    figures = rows.setdefault((account.project, account.user, entry.space, entry.kind), _Figures())
    figures.input_tokens += entry.tokens
    figures.cost_nano_usd += entry.cost_nano_usd
    figures.requests += entry.requests
    figures.wait_seconds += entry.wait_ms / 1000


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


def _report(partition: str, table: pa.Table) -> CostReport:
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
