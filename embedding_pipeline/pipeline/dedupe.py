"""``deduped_chunks`` and ``duplicate_chunks``: each text of a day once, copies listed.

Belongs here: the two passes over one day's chunks. Does not belong here: what makes a
copy (``dedup``).
"""

from contextlib import ExitStack
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.dedup.grouping import Groups, Rows, group
from embedding_pipeline.dedup.keys import COLUMNS, KeyCollector
from embedding_pipeline.errors import NotAvailableYet
from embedding_pipeline.pipeline.reports import DedupReport
from embedding_pipeline.records import DUPLICATE_CHUNKS
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import OpenPartition

_SYSTEM: Final = SystemClock()


def build_deduped_chunks(
    datasets: Datasets, config: DedupConfig, partition: str, *, clock: Clock = _SYSTEM
) -> DedupReport:
    """Make ``deduped_chunks`` and ``duplicate_chunks`` of one day. Blocking.

    Copies are looked for within the day and within a project: a tenant's text never
    stands for another's. The first pass gathers small keys, the second writes; memory
    holds the keys and ids (about 100 bytes a chunk), never the texts.

    Args:
        datasets: where the day's ``raw_chunks`` are and the results go.
        config: what counts as a copy.
        partition: the day.
        clock: for the duration in the report.

    Raises:
        NotAvailableYet: ``config`` asks for what this version does not have.
        DataError: ``raw_chunks`` of the day is missing or damaged, or the disk is full.
    """
    if config.near or config.scope_days:
        raise NotAvailableYet("dedup.near and dedup.scope_days are not available yet; remove them")
    begun = clock.monotonic()
    with datasets.raw_chunks(partition).open() as raw:
        ids, groups = _decide(raw)
        saved = _write(datasets, raw, ids, groups, partition)
    return DedupReport(
        partition=partition,
        chunks_in=groups.chunks_in,
        chunks_out=groups.chunks_out,
        duplicates=groups.duplicates,
        tokens_saved=saved,
        seconds=clock.monotonic() - begun,
    )


def _decide(raw: OpenPartition) -> tuple[pa.Array, Groups]:
    """The first pass: the ids of all chunks and who represents them; the keys are let go."""
    collector = KeyCollector()
    for batch in raw.iter_batches(COLUMNS):
        collector.add(batch)
    keys = collector.keys()
    return keys.ids, group(keys)


def _write(
    datasets: Datasets, raw: OpenPartition, ids: pa.Array, groups: Groups, partition: str
) -> int:
    """The second pass; returns the tokens of the chunks left out."""
    kept, saved, start = groups.kept, 0, 0
    with ExitStack() as stack:
        representatives = stack.enter_context(datasets.deduped_chunks(partition).writer())
        copies = stack.enter_context(datasets.duplicate_chunks(partition).writer())
        for batch in raw.iter_batches():
            mask = kept[start : start + batch.num_rows]
            representatives.write(batch.filter(pa.array(mask)))
            rows = start + np.flatnonzero(~mask)
            copies.write(_duplicates(ids, groups, rows, partition))
            saved += pc.sum(batch.column("token_count").filter(pa.array(~mask))).as_py() or 0
            start += batch.num_rows
    return saved


def _duplicates(ids: pa.Array, groups: Groups, rows: Rows, day: str) -> pa.RecordBatch:
    """Rows of ``duplicate_chunks`` for the chunks at ``rows``."""
    methods = np.where(groups.exact[rows], "exact", "normalized")
    return pa.RecordBatch.from_arrays(
        [
            ids.take(pa.array(rows)),
            ids.take(pa.array(groups.representative[rows])),
            pa.array([day] * len(rows), pa.string()),
            pa.array(methods.tolist(), pa.string()),
            pa.array(np.ones(len(rows), np.float32)),
        ],
        schema=DUPLICATE_CHUNKS,
    )
