"""What the service is handed and what it hands back.

Belongs here: frozen values and counters. Does not belong here: doing anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from embedding_pipeline.records import Account, Attempt, Digest, Vectors


class Item(NamedTuple):
    """One key to fetch: the exact text to send and who pays for it."""

    digest: Digest
    text: str
    tokens: int
    estimate: int
    account: Account


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a text has no vector.

    Attributes:
        reason: a stable word.
        code: the provider's code, or "".
        attempted: it was judged or tried now, not just known from before.
    """

    reason: str
    code: str = ""
    attempted: bool = True


@dataclass(frozen=True, slots=True)
class Deferral:
    """Why a text is left for later.

    Attributes:
        reason: a stable word.
        message: what a caller is told: what is the matter, and when it passes.
    """

    reason: str
    message: str


@dataclass(frozen=True)
class Landing:
    """What came of a group of items.

    Attributes:
        digests: the keys that have a vector.
        vectors: float32, shape ``(len(digests), native_dimensions)``, row by key.
        bought: this call paid for them; otherwise they were found stored.
        refused: keys without a vector, and why.
        billed: tokens billed by account, by the provider's count.
        requests: calls made.
        attempts: calls that failed on the way.
        limited_seconds: time spent waiting for permits of the rate limit.
        deferred: keys left for later, and why.
    """

    digests: Sequence[Digest]
    vectors: Vectors
    bought: bool
    refused: Mapping[Digest, Refusal] = field(default_factory=dict)
    billed: Mapping[Account, int] = field(default_factory=dict)
    requests: int = 0
    attempts: Sequence[Attempt] = ()
    limited_seconds: float = 0.0
    deferred: Mapping[Digest, Deferral] = field(default_factory=dict)

    @property
    def wait_seconds(self) -> float:
        """Time spent waiting between attempts, and for permits."""
        return self.limited_seconds + sum(attempt.waited_seconds for attempt in self.attempts)


class Row(IntEnum):
    """How a row of a batch ended; all from ``REFUSED`` on have no vector."""

    OPEN = 0
    EMBEDDED = 1
    CACHED = 2
    REFUSED = 3
    DEFERRED = 4


@dataclass(frozen=True)
class WorkBatch:
    """A stretch of chunks to embed, all of one partition.

    Attributes:
        partition: the day.
        chunk_ids: ids, unique within the partition.
        texts: the exact texts.
        tokens: cl100k tokens of each text, shape ``(n,)``.
        accounts: who pays for each.
        payload: whatever the caller wants back with the result.
    """

    partition: str
    chunk_ids: Sequence[str]
    texts: Sequence[str]
    tokens: npt.NDArray[np.int32]
    accounts: Sequence[Account]
    payload: object = None

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class FilledBatch:
    """A work batch with every row decided.

    Attributes:
        work: the batch as it came.
        pieces: float32 matrices as they came in; on top of each other, they have shape
            ``(n, native_dimensions)``. Rows refused or deferred are zero.
        status: a ``Row`` for each row, shape ``(n,)``.
        refused: why, for the rows refused.
        derived: ``truncated`` or ``split_mean`` with the number of parts, for rows whose
            vector was not made from exactly their text.
        deferred: why, for the rows left for later.
    """

    work: WorkBatch
    pieces: Sequence[Vectors]
    status: npt.NDArray[np.uint8]
    refused: Mapping[int, Refusal]
    derived: Mapping[int, tuple[str, int]]
    deferred: Mapping[int, Deferral] = field(default_factory=dict)

    @cached_property
    def vectors(self) -> Vectors:
        """All rows as one matrix; more than one piece is copied for it."""
        return self.pieces[0] if len(self.pieces) == 1 else np.concatenate(self.pieces)


@dataclass
class Tally:
    """Running figures of one partition."""

    chunks: int = 0
    embedded: int = 0
    cached: int = 0
    quarantined: int = 0
    deferred: int = 0
    requests: int = 0
    input_tokens: int = 0
    saved_tokens: int = 0
    retries: int = 0
    wait_seconds: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        done: chunks decided.
        total: chunks in all, or None where unknown.
        embedded: chunks embedded in this run.
        input_tokens: tokens billed in this run.
        cost_nano_usd: money spent in this run.
        seconds: time since the run began.
    """

    done: int
    total: int | None
    embedded: int
    input_tokens: int
    cost_nano_usd: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Billed tokens a second."""
        return self.input_tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Remaining time at the pace so far; None where nothing is known."""
        if not self.total or not self.done:
            return None
        return self.seconds * (self.total - self.done) / self.done
