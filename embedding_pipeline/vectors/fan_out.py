"""Duplicates take the vector of their representative.

Belongs here: spreading vectors over the duplicates that share them. Does not belong
here: which partitions are read, or how a text becomes a representative.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.records import DUPLICATE_CHUNKS, RAW_CHUNKS
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import PartitionFile

_SCAN_ROWS: Final = 1 << 16
"""Rows of small columns looked at in one go."""

Positions = npt.NDArray[np.int64]
"""Numbers of rows, in the order in which the rows are wanted."""


@dataclass(frozen=True)
class Duplicates:
    """The duplicates of one day whose representatives stand on one and the same date.

    Attributes:
        rows: the columns a reader wants of each, grouped by representative.
        spans: representative id → number of its first duplicate, and one past its last.
    """

    rows: pa.Table
    spans: Mapping[str, tuple[int, int]]

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
        spans = [(row, self.spans.get(name)) for row, name in enumerate(ids.to_pylist())]
        found = [(row, *span) for row, span in spans if span is not None]
        sources = [np.full(stop - start, row, np.int64) for row, start, stop in found]
        targets = [np.arange(start, stop, dtype=np.int64) for _, start, stop in found]
        none = np.empty(0, np.int64)
        return np.concatenate([none, *sources]), np.concatenate([none, *targets])

    def _merge(self, representatives: pa.RecordBatch, targets: Positions) -> pa.RecordBatch:
        own = self.rows.take(targets)
        columns = {name: own.column(name).combine_chunks() for name in own.column_names}
        if "text" in columns:
            columns["text"] = pc.coalesce(columns["text"], representatives.column("text"))
        columns["vector"] = representatives.column("vector")
        schema = representatives.schema
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def duplicates_by_date(
    datasets: Datasets, day: str, columns: Sequence[str]
) -> Mapping[str, Duplicates]:
    """The duplicates of ``day`` by the date of their representatives.

    Holds the ids of the duplicates and their ``columns`` of ``raw_chunks``; of texts
    only those that differ from the representative's. Raises DataError.
    """
    names = ["chunk_id", "representative_id", "representative_date", "method"]
    links = _read(datasets.duplicate_chunks(day), names, _select(DUPLICATE_CHUNKS, names))
    rows = _raw_rows(datasets.raw_chunks(day), links, columns)
    links = links.append_column("row", pc.index_in(links["chunk_id"], rows["chunk_id"]))
    links = links.filter(pc.is_valid(links["row"]))
    dates = links.column("representative_date")
    return {
        date: _group(links.filter(pc.equal(dates, date)), rows)
        for date in sorted(pc.unique(dates).to_pylist())
    }


def _group(links: pa.Table, rows: pa.Table) -> Duplicates:
    links = links.sort_by([("representative_id", "ascending"), ("chunk_id", "ascending")])
    runs = pc.run_end_encode(links["representative_id"].combine_chunks())
    ends = runs.run_ends.to_pylist()
    spans = zip([0, *ends[:-1]], ends, strict=True)
    wanted = rows.take(links["row"]).combine_chunks()
    return Duplicates(wanted, dict(zip(runs.values.to_pylist(), spans, strict=True)))


def _raw_rows(raw: PartitionFile, links: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The rows of the duplicates, without the texts that equal their representative's."""
    wanted = links["chunk_id"].combine_chunks()
    exact = links.filter(pc.equal(links["method"], "exact"))["chunk_id"].combine_chunks()
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
