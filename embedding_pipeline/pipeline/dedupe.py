"""``deduped_chunks`` and ``duplicate_chunks``: each text of a day once, copies listed.

Belongs here: which days are looked at, and writing what was decided. Does not belong
here: what makes a copy (``dedup``).
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.dedup.clusters import Rows
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.dedup.grouping import Groups, Method, Window, group
from embedding_pipeline.pipeline.reports import Cluster, DedupReport
from embedding_pipeline.pipeline.signatures import signatures_of
from embedding_pipeline.records import DUPLICATE_CHUNKS
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import OpenPartition

LARGEST: Final = 10
"""How many clusters a report names."""

_SYSTEM: Final = SystemClock()


def build_deduped_chunks(
    datasets: Datasets, config: DedupConfig, partition: str, *, clock: Clock = _SYSTEM
) -> DedupReport:
    """Make ``deduped_chunks`` and ``duplicate_chunks`` of one day. Blocking.

    Copies are looked for within the day and among the raw chunks of ``config.scope_days``
    days before it, as far as those were made. What was decided for those days plays no
    part, so that days can be made in any order and side by side. Memory holds the
    signatures of these days (about 250 bytes a chunk), and shingles of some candidates.

    Args:
        datasets: where ``raw_chunks`` are and the results go.
        config: what counts as a copy.
        partition: the day.
        clock: for the duration in the report.

    Raises:
        DataError: ``raw_chunks`` of the day is missing, one of the days looked at is
            damaged, or the disk is full.
    """
    begun = clock.monotonic()
    with ExitStack() as stack:
        # held open, so that signatures and texts are of the very same chunks
        earlier = [datasets.raw_chunks(day) for day in days_before(partition, config.scope_days)]
        files = [file for file in earlier if file.exists()] + [datasets.raw_chunks(partition)]
        raws = [stack.enter_context(file.open()) for file in files]
        decided = _decide(datasets, raws, config)
        saved = _write(datasets, raws[-1], decided, partition)
    groups = decided.groups
    return DedupReport(
        partition=partition,
        chunks_in=groups.chunks_in,
        chunks_out=groups.chunks_out,
        duplicates=groups.duplicates,
        tokens_saved=saved,
        elsewhere=groups.elsewhere,
        missing_days=tuple(file.day for file in earlier if file not in files),
        clusters=decided.largest(),
        seconds=clock.monotonic() - begun,
    )


def days_before(day: str, count: int) -> list[str]:
    """The ``count`` days before ``day``, oldest first."""
    end = date.fromisoformat(day)
    return [str(end - timedelta(days=n)) for n in range(count, 0, -1)]


@dataclass(frozen=True)
class _Decided:
    """What became of the chunks of a day, and where its representatives are found."""

    window: Window
    groups: Groups

    def copies(self, rows: Rows) -> pa.RecordBatch:
        """Rows of ``duplicate_chunks`` for the chunks at ``rows`` of the day."""
        groups = self.groups
        ids, days = self.window.identities(groups.representative[rows])
        own, _ = self.window.identities(groups.first + rows)
        words = pa.array([method.word for method in Method], pa.string())
        methods = words.take(pa.array(groups.method[rows]))
        similarity = pa.array(groups.similarity[rows])
        return pa.RecordBatch.from_arrays(
            [own, ids, days, methods, similarity], schema=DUPLICATE_CHUNKS
        )

    def largest(self) -> tuple[Cluster, ...]:
        found = self.groups.largest(LARGEST)
        rows = np.array([row for row, _ in found], np.int64)
        names = (column.to_pylist() for column in self.window.identities(rows))
        sizes = [size for _, size in found]
        return tuple(Cluster(*one) for one in zip(*names, sizes, strict=True))


def _decide(datasets: Datasets, raws: list[OpenPartition], config: DedupConfig) -> _Decided:
    tables = [signatures_of(datasets, raw, config) for raw in raws]
    window = Window([raw.file.day for raw in raws], tables)

    def texts(rows: Rows) -> Iterator[list[str]]:
        for number, places in window.of_day(rows):
            for batch in raws[number].pick(places, ("text",)):
                yield batch.column("text").to_pylist()

    return _Decided(window, group(window, texts, config))


def _write(datasets: Datasets, raw: OpenPartition, decided: _Decided, partition: str) -> int:
    """Write both datasets; returns the tokens of the chunks left out."""
    kept, saved, start = decided.groups.kept, 0, 0
    with ExitStack() as stack:
        representatives = stack.enter_context(datasets.deduped_chunks(partition).writer())
        copies = stack.enter_context(datasets.duplicate_chunks(partition).writer())
        for batch in raw.iter_batches():
            mask = kept[start : start + batch.num_rows]
            representatives.write(batch.filter(pa.array(mask)))
            copies.write(decided.copies(start + np.flatnonzero(~mask)))
            saved += pc.sum(batch.column("token_count").filter(pa.array(~mask))).as_py() or 0
            start += batch.num_rows
    return saved
