"""``raw_chunks``: a day of a source as chunks, with what could not be used kept aside.

Belongs here: streaming from source to Parquet, and the tally. Does not belong here:
what a good row is (``sources``), how text is split (``chunking``).
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.chunking.batches import ChunkBatch, chunk_partition
from embedding_pipeline.chunking.config import ChunkingConfig
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.pipeline.reports import RawReport
from embedding_pipeline.records import REJECTED_ROWS, Rejected
from embedding_pipeline.sources.base import ChunkSource
from embedding_pipeline.sources.marks import Digest, Mark
from embedding_pipeline.tokens import TokenCounter
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import PartitionFile
from embedding_pipeline.vectors.writing import PartitionWriter

EXAMPLES: Final = 10
"""How many rejected rows a report names."""

_SYSTEM: Final = SystemClock()


def build_raw_chunks(
    source: ChunkSource,
    datasets: Datasets,
    counter: TokenCounter,
    config: ChunkingConfig,
    partition: str,
    *,
    clock: Clock = _SYSTEM,
) -> RawReport:
    """Make ``raw_chunks`` of one day, and ``rejected_rows`` if any were. Blocking.

    A day without data is an empty partition. Memory holds a batch of chunks and a row
    group, whatever the day holds.

    Args:
        source: where chunks come from.
        datasets: where they go.
        counter: counts their tokens.
        config: how documents are split.
        partition: the day.
        clock: for the duration in the report.

    Raises:
        SourceError: the source cannot be read at all; the old partition stays.
        DataError: ``partition`` is not a day, or the disk does not take it.
    """
    begun = clock.monotonic()
    file = datasets.raw_chunks(partition)
    day, digest, tally = date.fromisoformat(partition), Digest(), _Tally()
    stamp = source.stamp(day)  # before reading: what changes meanwhile is seen later
    items = digest.passing(source.read(day))
    with ExitStack() as stack:
        chunks = stack.enter_context(file.writer())
        aside = _Aside(datasets.rejected_rows(partition), stack)
        for batch in chunk_partition(items, config, counter):
            chunks.write(batch.chunks)
            aside.write(batch.rejected)
            tally.add(batch)
        chunks.annotate(Mark(stamp, digest.value).to_metadata())
    aside.finish()
    return RawReport(
        partition=partition,
        rows=tally.rows,
        chunks=chunks.rows,
        input_tokens=tally.tokens,
        rejected=dict(tally.rejected),
        examples=tuple(tally.examples),
        seconds=clock.monotonic() - begun,
    )


@dataclass
class _Tally:
    """What the report says, summed up batch by batch."""

    rows: int = 0
    tokens: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, batch: ChunkBatch) -> None:
        self.rows += batch.items
        self.tokens += pc.sum(batch.chunks.column("token_count")).as_py() or 0
        self.rejected.update(row.reason for row in batch.rejected)
        shown = batch.rejected[: EXAMPLES - len(self.examples)]
        self.examples += [_encodable(f"{row.location}: {row.reason}") for row in shown]


class _Aside:
    """``rejected_rows`` of a day: there is a file only if there are rows."""

    def __init__(self, file: PartitionFile, stack: ExitStack) -> None:
        self._file = file
        self._stack = stack
        self._writer: PartitionWriter | None = None

    def write(self, rows: Sequence[Rejected]) -> None:
        if rows and self._writer is None:
            self._writer = self._stack.enter_context(self._file.writer())
        if self._writer is not None:
            self._writer.write(_rejected_batch(rows))

    def finish(self) -> None:
        """Remove what an earlier run kept aside, when this one had nothing to."""
        if self._writer is None:
            self._file.remove()


def _rejected_batch(rows: Sequence[Rejected]) -> pa.RecordBatch:
    columns = {
        name: [_encodable(getattr(row, name)) for row in rows] for name in REJECTED_ROWS.names
    }
    return pa.RecordBatch.from_pydict(columns, schema=REJECTED_ROWS)


def _encodable(text: str) -> str:
    """A bad row may be bad for its lone surrogates; they must not stop its being kept."""
    return text.encode("utf-8", "replace").decode()
