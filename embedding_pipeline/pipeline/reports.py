"""What each step says of itself: frozen values that become metadata, logs and printed lines.

Belongs here: the reports. Does not belong here: computing them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RawReport:
    """One partition of ``raw_chunks``.

    Attributes:
        partition: the day, ``YYYY-MM-DD``.
        rows: rows or documents read, rejected ones included.
        chunks: rows written.
        input_tokens: tokens of all chunks (cl100k_base).
        rejected: rows kept aside, by reason.
        examples: up to ten ``location: reason`` of rejected rows.
        seconds: wall time of the step.
    """

    partition: str
    rows: int
    chunks: int
    input_tokens: int
    rejected: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Cluster:
    """Chunks of one day that one text stands for.

    Attributes:
        representative_id: its chunk.
        representative_date: the day that chunk is of.
        chunks: how many chunks of the day it stands for, itself included.
    """

    representative_id: str
    representative_date: str
    chunks: int


@dataclass(frozen=True)
class DedupReport:
    """One partition of ``deduped_chunks`` and ``duplicate_chunks``.

    Attributes:
        partition: the day.
        chunks_in: raw chunks.
        chunks_out: representatives.
        duplicates: chunks left out, by method (``exact``, ``normalized``, ``near``).
        tokens_saved: tokens of the chunks left out.
        elsewhere: chunks left out whose representative stands on an earlier day.
        missing_days: days in scope that had no ``raw_chunks`` yet.
        clusters: the largest groups, largest first.
        seconds: wall time of the step.
    """

    partition: str
    chunks_in: int
    chunks_out: int
    duplicates: Mapping[str, int] = field(default_factory=dict)
    tokens_saved: int = 0
    elsewhere: int = 0
    missing_days: tuple[str, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class EmbedReport:
    """One partition of ``embeddings``.

    ``chunks = embedded + cached + quarantined + deferred`` always holds.

    Attributes:
        partition: the day.
        space: name of the space.
        dimensions: length of the vectors written (the view).
        chunks: representatives read.
        embedded: vectors made in this run.
        cached: vectors that were there already.
        quarantined: chunks the provider refuses, kept by id and reason.
        deferred: chunks left for later.
        requests: calls made for this partition (a shared call counts for each).
        input_tokens: tokens billed for this partition in this run.
        cost_nano_usd: money spent on this partition in this run.
        saved_nano_usd: money the cache saved in this run.
        retries: failed attempts in requests that touched this partition.
        wait_seconds: time spent waiting between attempts and for permits.
        fingerprint: fingerprint of the settings that shape the vectors.
        path: where the Parquet file is, relative to ``data_dir``.
        seconds: wall time from the start of the run until the partition was whole.
        stand_ins: deferred chunks that have a vector of another model meanwhile.
    """

    partition: str
    space: str
    dimensions: int
    chunks: int
    embedded: int = 0
    cached: int = 0
    quarantined: int = 0
    deferred: int = 0
    requests: int = 0
    input_tokens: int = 0
    cost_nano_usd: int = 0
    saved_nano_usd: int = 0
    retries: int = 0
    wait_seconds: float = 0.0
    fingerprint: str = ""
    path: str = ""
    seconds: float = 0.0
    stand_ins: int = 0

    @property
    def cache_hit_ratio(self) -> float:
        """Share of the chunks whose vector was there already; 0 for an empty partition."""
        return self.cached / self.chunks if self.chunks else 0.0


@dataclass(frozen=True)
class CostReport:
    """One partition of ``cost_summary``: totals over its rows.

    Attributes:
        partition: the day.
        chunks: raw chunks explained.
        input_tokens: tokens billed.
        cost_nano_usd: money spent, all attempts included.
        saved_nano_usd: money not spent thanks to the cache and deduplication.
        requests: calls made.
        rows: number of rows written.
    """

    partition: str
    chunks: int
    input_tokens: int
    cost_nano_usd: int
    saved_nano_usd: int
    requests: int
    rows: int


@dataclass(frozen=True)
class CheckVerdict:
    """What a check found.

    Attributes:
        passed: whether all is well.
        description: one sentence for a person; on failure it says what to do.
        metadata: figures behind the verdict.
        blocking: a failure stops what comes downstream.
    """

    passed: bool
    description: str
    metadata: Mapping[str, int | float | str] = field(default_factory=dict)
    blocking: bool = True
