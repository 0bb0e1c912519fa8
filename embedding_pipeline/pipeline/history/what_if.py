"""What near-duplicate detection would have left out, had it been on, or less strict.

Belongs here: deduplicating the latest days once more, in a scratch folder, and finding
which of the chunks left out then were paid for. Does not belong here: what follows from it.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection

from embedding_pipeline.cache import database
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.ledger import queries
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
from embedding_pipeline.pipeline.history.figures import NearCopies
from embedding_pipeline.pipeline.representatives import Scratch
from embedding_pipeline.records import Digest, Space
from embedding_pipeline.vectors.datasets import Datasets

MOST_CHUNKS: Final = 5_000
"""Chunks that are looked at again; a few seconds' work."""

STEP: Final = 0.1
LEAST_THRESHOLD: Final = 0.7
"""Below it, near copies are other texts."""


@dataclass(frozen=True)
class Candidate:
    """A chunk that was kept, and would have been left out."""

    day: str
    project: str
    tokens: int
    digest: Digest


@dataclass(frozen=True)
class Candidates:
    """All of them on some days, under one threshold."""

    days: tuple[str, ...]
    threshold: float
    chunks: Sequence[Candidate]


def looser(config: DedupConfig) -> DedupConfig | None:
    """The next threshold to consider; None where nothing sensible is left.

    It is the one that is set, where near-duplicates are kept, else a step below it.
    """
    wanted = config.threshold if not config.near else round(config.threshold - STEP, 2)
    if wanted < LEAST_THRESHOLD:
        return None
    return config.model_copy(update={"near": True, "threshold": wanted})


def candidates(datasets: Datasets, config: DedupConfig) -> Candidates | None:
    """What ``looser`` settings would have left out of the latest days. Blocking.

    Raises:
        DataError: a dataset of these days is damaged.
    """
    wanted = looser(config)
    if wanted is None:
        return None
    days: list[str] = []
    found: list[Candidate] = []
    seen = 0
    for day in reversed(datasets.days("deduped_chunks")):
        raw = datasets.raw_chunks(day)
        if not raw.exists():
            continue
        days.append(day)
        seen += raw.rows()
        found += _left_out(datasets, wanted, day)
        if seen >= MOST_CHUNKS:
            break
    return Candidates(tuple(sorted(days)), wanted.threshold, found) if days else None


def _left_out(datasets: Datasets, config: DedupConfig, day: str) -> Iterator[Candidate]:
    with tempfile.TemporaryDirectory(prefix="embedding_pipeline_dedup_") as folder:
        scratch = Scratch(Path(folder), datasets)
        build_deduped_chunks(scratch, config, day)
        batches = scratch.duplicate_chunks(day).iter_batches(("chunk_id",))
        gone = pa.array([name for batch in batches for name in batch.column(0).to_pylist()])
    names = ("chunk_id", "project", "token_count", "content_hash")
    for batch in datasets.deduped_chunks(day).iter_batches(names):
        rows = batch.filter(pc.is_in(batch.column("chunk_id"), value_set=gone.cast(pa.string())))
        for row in rows.to_pylist():
            digest = Digest(bytes.fromhex(row["content_hash"]))
            yield Candidate(day, row["project"], row["token_count"], digest)


def paid(connection: Connection, space: Space, found: Candidates) -> NearCopies | None:
    """Those of the candidates that their own project paid for, on their own day."""
    number = database.find_space(connection, space)
    if number is None:
        return None
    by_digest = database.paid_by(connection, number, [one.digest for one in found.chunks])
    entries = queries.entries(connection, sorted(set(by_digest.values())))
    chunks: dict[str, int] = {}
    tokens: dict[str, int] = {}
    for one in found.chunks:
        entry = entries.get(by_digest.get(one.digest, -1))
        if entry and (entry.account.project, entry.account.partition) == (one.project, one.day):
            chunks[one.project] = chunks.get(one.project, 0) + 1
            tokens[one.project] = tokens.get(one.project, 0) + one.tokens
    return NearCopies(found.days, found.threshold, chunks, tokens)
