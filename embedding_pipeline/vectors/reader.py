"""Vectors of a range of days, as a stream of record batches or as one table.

Belongs here: ``read_vectors`` and what it joins. Does not belong here: finding
settings or the active space (``assembly``), and search.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import pyarrow as pa

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import Space, embeddings_schema
from embedding_pipeline.vectors.columns import with_view
from embedding_pipeline.vectors.datasets import Datasets, EmbeddingsFile
from embedding_pipeline.vectors.fan_out import duplicates_by_date
from embedding_pipeline.vectors.partition import BATCH_ROWS
from embedding_pipeline.vectors.texts import Texts

log = logging.getLogger(__name__)

_IDENTITY: Final = ("chunk_id", "document_id", "project", "content_hash")


def read_vectors(
    datasets: Datasets,
    space: Space,
    start: str,
    end: str,
    *,
    dimensions: int | None = None,
    fan_out: bool = True,
    with_text: bool = False,
) -> pa.Table:
    """Everything ``iter_vectors`` yields, as one table in memory. Raises DataError."""
    batches = iter_vectors(
        datasets,
        space,
        start,
        end,
        dimensions=dimensions,
        fan_out=fan_out,
        with_text=with_text,
    )
    length = space.native_dimensions if dimensions is None else dimensions
    return pa.Table.from_batches(batches, _schema(length, with_text=with_text))


def iter_vectors(
    datasets: Datasets,
    space: Space,
    start: str,
    end: str,
    *,
    dimensions: int | None = None,
    fan_out: bool = True,
    with_text: bool = False,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[pa.RecordBatch]:
    """Stream the vectors of the days ``start`` to ``end``, both included.

    With ``fan_out`` every raw chunk that is not quarantined or deferred comes exactly
    once, a duplicate with its representative's vector, which may be of a day before
    ``start``; without, representatives only. Memory holds a batch, and per day the ids of
    its duplicates.

    Args:
        datasets: where to read.
        space: the space wanted.
        start: first day, ``YYYY-MM-DD``.
        end: last day.
        dimensions: length of the vectors; stored ones may be longer. None means native.
        fan_out: give duplicates their vector.
        with_text: add a column ``text``: each chunk's own.
        batch_rows: most rows in one batch.

    Returns:
        Batches of ``chunk_id``, ``document_id``, ``project``, ``content_hash``,
        ``vector`` (float32) and maybe ``text``, day by day.

    Raises DataError, before the first batch, when a day's vectors are missing, damaged,
    or of another space or dimensions; later when anything else they need is.
    """
    days = days_between(start, end)
    for day in days:
        _require_whole(datasets.served_embeddings(space, day, dimensions))
    reader = _Reader(datasets, space, dimensions, with_text, batch_rows)
    of_day = reader.chunks if fan_out else reader.representatives
    return (batch for day in days for batch in of_day(day))


def read_stand_ins(
    datasets: Datasets,
    space: Space,
    start: str,
    end: str,
    *,
    fan_out: bool = True,
    with_text: bool = False,
) -> pa.Table:
    """What stands in for vectors of the days ``start`` to ``end``, in the stand-ins' ``space``.

    Read it before the vectors themselves: what is in neither then was in both meanwhile.
    Columns as of ``iter_vectors``; no rows where nothing stands in. Raises DataError.
    """
    reader = _StandIns(datasets, space, None, with_text, BATCH_ROWS)
    of_day = reader.chunks if fan_out else reader.representatives
    batches = (batch for day in days_between(start, end) for batch in of_day(day))
    return pa.Table.from_batches(batches, _schema(space.native_dimensions, with_text=with_text))


def days_between(start: str, end: str) -> list[str]:
    """The days from ``start`` to ``end``, both included. Raises DataError."""
    try:
        first, last = date.fromisoformat(start), date.fromisoformat(end)
    except ValueError as error:
        raise DataError(f"{start!r} to {end!r} is not a range of days (YYYY-MM-DD)") from error
    if last < first:
        raise DataError(f"the range of days ends ({end}) before it starts ({start})")
    return [str(first + timedelta(days=n)) for n in range((last - first).days + 1)]


def _require_whole(file: EmbeddingsFile) -> None:
    """Every chunk has a vector, or the file says why not. Raises DataError."""
    rows, counts = file.rows(), file.provenance().counts
    deferred = counts.get("deferred", 0)
    without = counts.get("quarantined", 0) + deferred
    if rows + without != counts.get("chunks", rows + without):
        raise DataError(
            f"{file.location} has {rows} vectors of {counts['chunks']} chunks, and reasons for "
            f"only {without} of those without; {file.remedy}"
        )
    if deferred:
        log.warning("%d chunks of %s are deferred and have no vector yet", deferred, file.day)


@dataclass(frozen=True)
class _Reader:
    datasets: Datasets
    space: Space
    dimensions: int | None
    with_text: bool
    batch_rows: int

    def chunks(self, day: str) -> Iterator[pa.RecordBatch]:
        """Representatives of ``day``, and its duplicates wherever their vectors are."""
        columns = [*_IDENTITY, "text"] if self.with_text else list(_IDENTITY)
        duplicates = duplicates_by_date(self.datasets, day, columns)
        for source in sorted({day, *duplicates}):
            of_source = duplicates.get(source)
            wanted = of_source.representatives if of_source and source != day else None
            for batch in self.representatives(source, wanted):
                if source == day:
                    yield batch
                if of_source is not None:
                    yield from of_source.spread(batch, self.batch_rows)
            if of_source is not None:
                of_source.settle(self.datasets.deduped_chunks(source))

    def representatives(self, day: str, wanted: pa.Array | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of one ``embeddings`` file, or of some ids in it; maybe with their texts."""
        vectors = self.datasets.served_embeddings(self.space, day, self.dimensions)
        texts = Texts(self.datasets.deduped_chunks(day))
        for batch in self._rows(vectors, wanted):
            yield _append_text(batch, texts) if self.with_text else batch

    def _rows(self, vectors: EmbeddingsFile, wanted: pa.Array | None) -> Iterator[pa.RecordBatch]:
        if wanted is None:
            yield from vectors.iter_batches(batch_rows=self.batch_rows)
            return
        with vectors.open() as opened:
            for table in opened.matching("chunk_id", wanted, vectors.schema.names):
                for batch in table.combine_chunks().to_batches(max_chunksize=self.batch_rows):
                    yield with_view(batch, vectors.dimensions)


class _StandIns(_Reader):
    """The same for stand-ins, which may go at any moment."""

    def representatives(self, day: str, wanted: pa.Array | None = None) -> Iterator[pa.RecordBatch]:
        vectors = self.datasets.stand_ins(self.space, day)
        try:
            batches = list(self._rows(vectors, wanted)) if vectors.exists() else []
        except DataError:
            if vectors.exists():
                raise
            batches = []
        texts = Texts(self.datasets.deduped_chunks(day))
        for batch in batches:
            yield _append_text(batch, texts) if self.with_text else batch


def _append_text(batch: pa.RecordBatch, texts: Texts) -> pa.RecordBatch:
    return batch.append_column("text", texts.of(batch.column("chunk_id")))


def _schema(dimensions: int, *, with_text: bool) -> pa.Schema:
    schema = embeddings_schema(dimensions)
    return schema.append(pa.field("text", pa.string())) if with_text else schema
