"""Duplicates take the vector of their representative.

Belongs here: spreading vectors over the duplicates that share them, wherever they are.
Does not belong here: which partitions are read, or how a text becomes a representative.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import DUPLICATE_CHUNKS, RAW_CHUNKS
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import PartitionFile

_SCAN_ROWS: Final = 1 << 16
"""Rows of small columns looked at in one go."""

_LINK: Final = ("chunk_id", "representative_id", "representative_date")

NO_LINKS: Final = pa.schema(
    [*(DUPLICATE_CHUNKS.field(name) for name in _LINK), ("exact", pa.bool_())]
).empty_table()
"""The links of a day on which every chunk has its own vector."""

Positions = npt.NDArray[np.int64]
"""Numbers of rows, in the order in which the rows are wanted."""


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of one day whose representatives stand on one and the same date.

    Attributes:
        links: the day's ``duplicate_chunks``.
        rows: the columns a reader wants of each, grouped by representative, and whether
            its text is ``exact``ly the representative's.
        spans: representative id → number of its first duplicate, and one past its last.
        met: the representatives that came by so far.
    """

    links: PartitionFile
    rows: pa.Table
    spans: Mapping[str, tuple[int, int]]
    met: set[str] = field(default_factory=set)

    @property
    def representatives(self) -> pa.Array:
        """The ids of the representatives."""
        return pa.array(list(self.spans), pa.string())

    def settle(self, chunks: PartitionFile) -> None:
        """Once all vectors came by: a representative without one must at least be there.

        ``chunks`` are the representatives of their date: one that is among them has no
        vector for a reason. Raises DataError when one is not: its day was made again.
        """
        names = pa.array(sorted(self.spans.keys() - self.met), pa.string())
        if not len(names):
            return
        with chunks.open() as opened:
            known = opened.find("chunk_id", names, ["chunk_id"]).num_rows
        if known < len(names):
            self._outdated(f"{len(names) - known} chunks that {chunks.day} does not have any more")

    def spread(self, batch: pa.RecordBatch, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """The duplicates of the representatives in ``batch``, with their vectors.

        A text that equals the representative's is not held twice: it is null in
        ``rows`` and taken from ``batch``. Batches have at most ``batch_rows`` rows.
        """
        sources, targets = self._pairs(batch.column("chunk_id"))
        for start in range(0, len(sources), batch_rows):
            stop = start + batch_rows
            yield self._merge(batch.take(sources[start:stop]), targets[start:stop])

    def _pairs(self, ids: pa.Array) -> tuple[Positions, Positions]:
        """Row of the representative in ``ids``, row of the duplicate in ``rows``."""
        names = ids.to_pylist()
        self.met.update(self.spans.keys() & set(names))
        spans = [(row, self.spans.get(name)) for row, name in enumerate(names)]
        found = [(row, *span) for row, span in spans if span is not None]
        sources = [np.full(stop - start, row, np.int64) for row, start, stop in found]
        targets = [np.arange(start, stop, dtype=np.int64) for _, start, stop in found]
        none = np.empty(0, np.int64)
        return np.concatenate([none, *sources]), np.concatenate([none, *targets])

    def _merge(self, representatives: pa.RecordBatch, targets: Positions) -> pa.RecordBatch:
        own = self.rows.take(targets)
        hashes = own["content_hash"], representatives["content_hash"]
        if pc.any(pc.and_(own["exact"], pc.not_equal(*hashes))).as_py():
            self._outdated("chunks whose text is another by now")
        columns = {name: own.column(name).combine_chunks() for name in own.column_names}
        if "text" in columns:
            columns["text"] = pc.coalesce(columns["text"], representatives.column("text"))
        columns["vector"] = representatives.column("vector")
        schema = representatives.schema
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _outdated(self, what: str) -> NoReturn:
        raise DataError(f"{self.links.name} lists copies of {what}; {self.links.remedy}")


def duplicates_by_date(
    datasets: Datasets, day: str, columns: Sequence[str]
) -> Mapping[str, Duplicates]:
    """The duplicates of ``day`` by the date of the chunks that have their vectors.

    Holds the ids of the duplicates and their ``columns`` of ``raw_chunks``, which must
    name ``content_hash``; of texts only those that differ from the representative's.
    Raises DataError.
    """
    file = datasets.duplicate_chunks(day)
    links = resolved(links_in(file), day, lambda date: links_in(datasets.duplicate_chunks(date)))
    rows = _raw_rows(datasets.raw_chunks(day), links, columns)
    links = links.append_column("row", pc.index_in(links["chunk_id"], rows["chunk_id"]))
    links = links.filter(pc.is_valid(links["row"]))
    dates = links.column("representative_date")
    return {
        date: _group(file, links.filter(pc.equal(dates, date)), rows)
        for date in sorted(pc.unique(dates).to_pylist())
    }


def links_in(file: PartitionFile) -> pa.Table:
    """Who represents whom, and whether by ``exact``ly its text. Raises DataError."""
    links = _read(file, [*_LINK, "method"], _select(DUPLICATE_CHUNKS, [*_LINK, "method"]))
    exact = pc.equal(links["method"], "exact")
    return links.drop_columns("method").append_column("exact", exact)


def resolved(links: pa.Table, day: str, links_of: Callable[[str], pa.Table]) -> pa.Table:
    """The links of ``day`` led on to the chunks that have vectors.

    A representative on an earlier day may itself be represented there, by a chunk of that
    day, which then has a vector, or of a day before it. Dates only go back, so this ends.
    ``links_of`` gives the links of a day.
    """
    done = day
    while earlier := [date for date in _dates(links) if date < done]:
        done = max(earlier)
        links = _onward(links, done, links_of(done))
    return links


def _dates(links: pa.Table) -> list[str]:
    dates: list[str] = pc.unique(links["representative_date"]).to_pylist()
    return dates


def _onward(links: pa.Table, day: str, further: pa.Table) -> pa.Table:
    """``links`` with those to chunks of ``day`` led on where ``further`` leads them."""
    places = pc.index_in(links["representative_id"], further["chunk_id"])
    led = pc.and_(pc.equal(links["representative_date"], day), pc.is_valid(places))
    places = pc.if_else(led, places, None)
    for name in _LINK[1:]:
        onward = pc.coalesce(further[name].take(places), links[name])
        links = links.set_column(links.schema.get_field_index(name), name, onward)
    exact = pc.and_(links["exact"], pc.invert(led))  # how alike the ends are is not known
    return links.set_column(links.schema.get_field_index("exact"), "exact", exact)


def _group(file: PartitionFile, links: pa.Table, rows: pa.Table) -> Duplicates:
    links = links.sort_by([("representative_id", "ascending"), ("chunk_id", "ascending")])
    runs = pc.run_end_encode(links["representative_id"].combine_chunks())
    ends = runs.run_ends.to_pylist()
    spans = zip([0, *ends[:-1]], ends, strict=True)
    wanted = rows.take(links["row"]).append_column("exact", links["exact"]).combine_chunks()
    return Duplicates(file, wanted, dict(zip(runs.values.to_pylist(), spans, strict=True)))


def _raw_rows(raw: PartitionFile, links: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The rows of the duplicates, without the texts that equal their representative's."""
    wanted = links["chunk_id"].combine_chunks()
    exact = links.filter(links["exact"])["chunk_id"].combine_chunks()
    batches = (
        _forget(batch.filter(pc.is_in(batch.column("chunk_id"), value_set=wanted)), exact)
        for batch in raw.iter_batches(columns, _SCAN_ROWS)
    )
    return pa.Table.from_batches(batches, _select(RAW_CHUNKS, columns))


def _forget(batch: pa.RecordBatch, exact: pa.Array) -> pa.RecordBatch:
    """``batch`` with null for the texts of the chunks in ``exact``."""
    place = batch.schema.get_field_index("text")
    if place < 0:
        return batch
    known = pc.is_in(batch.column("chunk_id"), value_set=exact)
    rows = pa.array(np.arange(batch.num_rows), mask=np.asarray(known, dtype=np.bool_))
    # taken, since if_else would hold on to memory for the texts it leaves out
    return batch.set_column(place, batch.schema.field(place), batch.column(place).take(rows))


def _read(file: PartitionFile, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_batches(file.iter_batches(columns, _SCAN_ROWS), schema)


def _select(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns])
