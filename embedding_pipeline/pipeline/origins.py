"""Where the vector of each chunk of some days came from, and what was not sent for it.

Belongs here: asking the datasets and the ledger, chunk by chunk, streamed. Does not belong
here: sums (``cost``).
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from embedding_pipeline.cache import database
from embedding_pipeline.errors import DataError
from embedding_pipeline.ledger import queries
from embedding_pipeline.pipeline.handfuls import missing_in
from embedding_pipeline.records import Account, Digest, Kind, Space
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.vectors.datasets import Datasets

COLUMNS: Final = ("chunk_id", "content_hash", "token_count", "project", "user")
_COPY: Final = ("chunk_id", "representative_id", "representative_date")


@dataclass(frozen=True)
class Day:
    """What decides the source of a day's chunks, the ledger aside.

    Attributes:
        partition: the day.
        space: name of the space.
        price: nano-USD a token, 0 where unknown.
        most: most tokens sent for one text, where longer ones are cut; else None.
        held: chunks in quarantine.
        copies: duplicates; whether their representative has a vector.
        derived: chunks whose vector is not made from exactly their text.
    """

    partition: str
    space: str
    price: int
    most: int | None
    held: frozenset[str]
    copies: Mapping[str, bool]
    derived: frozenset[str]

    @property
    def columns(self) -> tuple[str, ...]:
        """What has to be read of the day's chunks; texts only where parts are looked up."""
        return (*COLUMNS, "text") if self.derived else COLUMNS

    def source(self, chunk: str, project: str, paid: queries.Entry | None) -> Kind | None:
        """Where a chunk's vector came from; None when it has none."""
        if chunk in self.held:
            return None
        if chunk in self.copies:
            return Kind.DUPLICATE
        if chunk in self.derived:
            return Kind.DERIVED
        if paid is None:
            return None
        return paid.kind if self.own(project, paid) else Kind.CACHE

    def own(self, project: str, paid: queries.Entry) -> bool:
        """Whether the project itself paid, for this very day."""
        return paid.account.partition == self.partition and paid.account.project == project

    def spared(self, chunk: str, source: Kind, tokens: int, parts: int) -> int:
        """Tokens that would have been sent for a chunk, and were not.

        Args:
            chunk: its id.
            source: where its vector came from.
            tokens: of its text.
            parts: of those of its parts that others had paid for, when it is derived.
        """
        if source is Kind.DERIVED:
            return parts
        if source is Kind.CACHE or (source is Kind.DUPLICATE and self.copies[chunk]):
            return tokens if self.most is None else min(tokens, self.most)
        return 0


@dataclass(frozen=True)
class Payers:
    """What the ledger knows of a batch of chunks.

    Attributes:
        paid: the entry that paid for each content hash that has a vector.
        spared: tokens of parts that others had paid for, by derived chunk.
    """

    paid: Mapping[str, queries.Entry]
    spared: Mapping[str, int] = field(default_factory=dict)


async def read_days(
    service: ServiceCore, datasets: Datasets, partitions: Sequence[str]
) -> dict[str, Day | DataError]:
    """Read what decides, asking the store once; what is wrong with those that cannot be read."""

    def look() -> dict[str, _Listed | DataError]:
        return {day: _listed_or_why(datasets, service.space, day) for day in partitions}

    listed = await asyncio.to_thread(look)
    dates = {date for one in listed.values() if isinstance(one, _Listed) for date in one.dates}
    missing = await missing_in(service, {*partitions, *dates})
    refused = {day: found.all for day, found in missing.items()}

    def decide() -> dict[str, Day | DataError]:
        return {
            day: one if isinstance(one, DataError) else _day(service, day, one, refused)
            for day, one in listed.items()
        }

    return await asyncio.to_thread(decide)


@dataclass(frozen=True)
class _Listed:
    """What the files of a day list: its copies, the dates they lead to, derived chunks."""

    copies: Sequence[pa.RecordBatch]
    dates: frozenset[str]
    derived: frozenset[str]


def _listed_or_why(datasets: Datasets, space: Space, day: str) -> _Listed | DataError:
    try:
        copies = list(datasets.duplicate_chunks(day).iter_batches(_COPY))
        derived = datasets.derived_chunks(space, day)
        names = _ids(derived.iter_batches(("chunk_id",))) if derived.exists() else frozenset[str]()
    except DataError as error:
        return error
    dates = (date for batch in copies for date in pc.unique(batch.column(2)).to_pylist())
    return _Listed(copies, frozenset(dates), names)


def _day(
    service: ServiceCore, day: str, listed: _Listed, refused: Mapping[str, frozenset[str]]
) -> Day:
    rules = service.rules
    return Day(
        day,
        str(service.space),
        service.price or 0,
        rules.max_tokens if rules.policy == "truncate" else None,
        refused[day],
        dict(_copies(listed.copies, refused)),
        listed.derived,
    )


def _copies(
    batches: Iterable[pa.RecordBatch], refused: Mapping[str, frozenset[str]]
) -> Iterable[tuple[str, bool]]:
    for batch in batches:
        columns = (column.to_pylist() for column in batch.columns)
        for chunk, representative, date in zip(*columns, strict=True):
            yield chunk, representative not in refused[date]


def _ids(batches: Iterable[pa.RecordBatch]) -> frozenset[str]:
    return frozenset(name for batch in batches for name in batch.column(0).to_pylist())


async def payers_of(
    service: ServiceCore, portion: Sequence[tuple[Day, pa.RecordBatch]]
) -> list[Payers]:
    """For each batch: for each content hash the entry that paid for its vector.

    The store is asked once for all of them, and for the parts of derived texts where there
    are any.
    """
    hashes = [batch.column("content_hash").to_pylist() for _, batch in portion]
    wanted = dict.fromkeys(chain.from_iterable(hashes))
    paid = await _paid(service, [Digest(bytes.fromhex(name)) for name in wanted])
    return [Payers(paid, await _parts_of(service, batch, day)) for day, batch in portion]


async def _parts_of(service: ServiceCore, batch: pa.RecordBatch, day: Day) -> dict[str, int]:
    """``_spared`` of those chunks in ``batch`` that are derived."""
    if not day.derived:
        return {}
    names = pa.array(sorted(day.derived), pa.string())
    derived = batch.filter(pc.is_in(batch.column("chunk_id"), value_set=names))
    return await _spared(service, derived, day) if derived.num_rows else {}


async def _spared(service: ServiceCore, batch: pa.RecordBatch, day: Day) -> dict[str, int]:
    """The tokens of the parts of derived texts that others had paid for, by chunk."""
    accounts = [
        Account(project, user or "", day.partition)
        for project, user in zip(
            batch.column("project").to_pylist(), batch.column("user").to_pylist(), strict=True
        )
    ]
    texts, tokens = batch.column("text").to_pylist(), batch.column("token_count").to_numpy()
    prepared = await asyncio.to_thread(service.rules.prepare, texts, tokens, accounts)
    paid = await _paid(service, list({item.digest: None for item in prepared.items}))
    names = batch.column("chunk_id").to_pylist()
    spared: dict[str, int] = {}
    for row, item in zip(prepared.rows, prepared.items, strict=True):
        entry = paid.get(item.digest.hex())
        if entry is not None and not day.own(item.account.project, entry):
            spared[names[row]] = spared.get(names[row], 0) + item.tokens
    return spared


async def _paid(service: ServiceCore, digests: Sequence[Digest]) -> dict[str, queries.Entry]:
    number = service.space_id

    def work(connection: Connection) -> dict[str, queries.Entry]:
        paid = database.paid_by(connection, number, digests)
        entries = queries.entries(connection, sorted(set(paid.values())))
        return {digest.hex(): entries[entry] for digest, entry in paid.items() if entry in entries}

    return await service.store.read(work)
