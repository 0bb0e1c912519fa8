"""Vectors of other tools into the durable cache, as far as they can be believed.

Belongs here: comparing a sample with the model, booking and storing. Does not belong here:
foreign formats or the checks of a single vector (``importing``).

Nothing is stored before the sample has been compared. An import is booked with entries of
kind ``import`` that cost nothing, so that every vector has its entry. A vector that is
there stays: what we bought is surer than what others say.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np
from sqlalchemy import Connection

from embedding_pipeline.cache import claims, database
from embedding_pipeline.clock import Clock
from embedding_pipeline.importing.found import Found, Reader
from embedding_pipeline.importing.judging import Demands, Judged, Refused, judge
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.ledger.shares import Share
from embedding_pipeline.records import Account, Digest, Kind, Space, Vectors
from embedding_pipeline.state.store import Store

BATCH: Final = 1000
"""Entries in one transaction, and in one ledger entry: what is evicted together."""

SAMPLE: Final = 20

LEAST_COSINE: Final = 0.999
"""Below this a vector is not the model's own for that text. The same text embedded twice
by OpenAI's models is above 0.9999; with a line break replaced it mostly is not."""

Compare = Callable[[Sequence[str]], Awaitable[Vectors]]
"""Embeds texts with the model itself, at native dimensions."""


@dataclass(frozen=True)
class ImportTerms:
    """What an import is made with.

    Attributes:
        space: the space the vectors are said to be of.
        origin: the tool they come from, for the ledger.
        project: for whom.
        dtype: how vectors are stored.
        sample: how many are embedded anew and compared.
    """

    space: Space
    origin: str
    project: str = "default"
    dtype: str = "float32"
    sample: int = SAMPLE


@dataclass
class ImportReport:
    """What came of an import.

    Attributes:
        found: entries of the foreign store that were looked at.
        stored: new in the cache.
        present: their key was there already, or is being bought; left as it is.
        refused: what was left out: counts by reason, and the first positions.
        compared: vectors compared with the model's own.
        worst_cosine: of those; None where none was compared.
        unlike: positions of those below ``LEAST_COSINE``. If there are any, nothing is stored.
    """

    found: int = 0
    stored: int = 0
    present: int = 0
    refused: Refused = field(default_factory=Refused)
    compared: int = 0
    worst_cosine: float | None = None
    unlike: list[int] = field(default_factory=list)

    @property
    def left_out(self) -> int:
        """Entries that were found wanting."""
        return sum(self.refused.counts.values())


async def import_vectors(
    store: Store,
    reader: Reader,
    demands: Demands,
    terms: ImportTerms,
    *,
    clock: Clock,
    rng: random.Random,
    compare: Compare | None = None,
    on_progress: Callable[[ImportReport], None] = lambda _: None,
) -> ImportReport:
    """Store what a foreign cache holds and passes the checks.

    Reads it twice when a sample is compared. Memory holds a batch and the sample. Killed
    and run again it goes on: what is stored is ``present`` then.

    Args:
        store: the shared store.
        reader: reads the foreign cache from its beginning.
        demands: what a vector must be like.
        terms: what it is stored as.
        clock: time.
        rng: draws the sample.
        compare: the model itself; None leaves the comparison out.
        on_progress: told after every batch.

    Raises:
        SourceError: the foreign cache cannot be read.
        StateError: the store refused; what was stored before stays.
        ProviderError: the sample could not be embedded; nothing was stored.
    """
    report = ImportReport()
    number = await store.write(lambda c: database.space_id(c, terms.space))
    if compare is not None and terms.sample:
        sample = _Sample(terms.sample, rng)
        await _draw(store, number, reader, demands, sample)
        await _compare(sample.drawn, compare, report)
        if report.unlike:
            return report
    batches = _batches(reader())
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        judged = await asyncio.to_thread(judge, batch, demands, report.refused)
        now = int(clock.now() * 1000)
        stored = await store.write(
            lambda c, j=judged, at=now: _store(c, number, terms, j, at)  # type: ignore[misc]
        )
        report.found += len(batch)
        report.stored += stored
        report.present += len(judged) - stored
        on_progress(report)
    return report


def _batches(found: Iterator[Found]) -> Iterator[list[Found]]:
    while batch := list(islice(found, BATCH)):
        yield batch


class _Sample:
    """Some of what would be new, each entry as likely as any other."""

    def __init__(self, count: int, rng: random.Random) -> None:
        self._count = count
        self._rng = rng
        self._seen = 0
        self.drawn: list[tuple[int, str, Vectors]] = []

    def offer(self, judged: Judged, known: set[Digest]) -> None:
        for row, digest in enumerate(judged.digests):
            if digest in known:
                continue
            self._seen += 1
            full = len(self.drawn) == self._count
            place = self._rng.randrange(self._seen) if full else len(self.drawn)
            if place < self._count:
                one = (judged.positions[row], judged.texts[row], judged.vectors[row].copy())
                self.drawn[place : place + 1] = [one]


async def _draw(
    store: Store, number: int, reader: Reader, demands: Demands, sample: _Sample
) -> None:
    """What is stored already would only be compared with itself: it is not drawn."""
    batches, nobody = _batches(reader()), Refused()
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        judged = await asyncio.to_thread(judge, batch, demands, nobody)
        known = await store.read(lambda c, j=judged: database.existing(c, number, j.digests))  # type: ignore[misc]
        sample.offer(judged, known)


async def _compare(
    drawn: Sequence[tuple[int, str, Vectors]], compare: Compare, report: ImportReport
) -> None:
    if not drawn:
        return
    own = await compare([text for _, text, _ in drawn])
    theirs = np.stack([vector for _, _, vector in drawn])
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = np.einsum("ij,ij->i", own, theirs, dtype=np.float64) / lengths
    report.compared = len(drawn)
    report.worst_cosine = float(cosines.min())
    report.unlike = sorted(drawn[row][0] for row in np.flatnonzero(cosines < LEAST_COSINE).tolist())


def _store(
    connection: Connection, number: int, terms: ImportTerms, judged: Judged, now_ms: int
) -> int:
    """Book and store what is new of a batch; returns how many."""
    first: dict[Digest, int] = {}
    for row, digest in enumerate(judged.digests):
        first.setdefault(digest, row)
    taken = database.existing(connection, number, list(first))
    taken |= claims.held(connection, number, list(first))
    new = {digest: row for digest, row in first.items() if digest not in taken}
    if not new:
        return 0
    account = Account(terms.project)
    flight = Flight(flights.new_id(), "", number, "", terms.origin, Kind.IMPORT, 0, ())
    paid = flights.settle(
        connection,
        flight,
        [Share(account, 0)],
        tokens=0,
        requests=0,
        wait_ms=0,
        provider=terms.origin,
        began_ms=now_ms,
    )
    return database.put_many(
        connection,
        number,
        terms.space,
        list(new),
        judged.vectors[list(new.values())],
        [paid[account]] * len(new),
        dtype=terms.dtype,
        now_ms=now_ms,
    )
