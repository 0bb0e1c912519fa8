"""A stream of batches in, the same batches with their vectors out, in order.

Belongs here: keeping the right amount of work open. Requests fill across batches and
partitions; a batch leaves when its last row is decided; the window bounds memory,
whatever the number of chunks. Backfills read past the memory tier on purpose.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedding_pipeline.cache.tier import Lookup
from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import ServiceClosed, ServiceError
from embedding_pipeline.ledger.quarantine import lasting
from embedding_pipeline.planning.requests import RequestCaps, plan_requests
from embedding_pipeline.records import Digest, Priority, Vectors
from embedding_pipeline.service.aside import Aside
from embedding_pipeline.service.batch import OpenBatch, Rows
from embedding_pipeline.service.config import WINDOW_BYTES
from embedding_pipeline.service.fetching import Fetcher
from embedding_pipeline.service.finishing import finish, let_in
from embedding_pipeline.service.fitting import fitting
from embedding_pipeline.service.outages import no_outage
from embedding_pipeline.service.places import Places, payer_of
from embedding_pipeline.service.preparing import InputRules
from embedding_pipeline.service.work import (
    Deferral,
    FilledBatch,
    Item,
    Landing,
    Progress,
    Refusal,
    Row,
    Tally,
    WorkBatch,
)
from embedding_pipeline.state.store import Store

log = logging.getLogger(__name__)

Source: TypeAlias = AsyncIterator[WorkBatch | Sequence[WorkBatch]]
"""Batches in order; small ones several at a time, which are then looked up together."""

OnProgress = Callable[[Progress], None]
OutageOf = Callable[[BaseException], Deferral | None]
"""Why work is left for later after an error; None where the error ends the run."""


@dataclass(frozen=True)
class BulkParts:
    """What a bulk run works with."""

    fetcher: Fetcher
    store: Store
    rules: InputRules
    caps: RequestCaps
    priority: Priority
    clock: Clock
    aside: Aside
    window_bytes: int = WINDOW_BYTES
    outage_of: OutageOf = no_outage
    hold: Deferral | None = None
    """Why nothing is sent at all: what is missing is left for later from the start."""


class BulkRun:
    """One pass over a stream of work. ``batches()`` may be iterated once."""

    def __init__(
        self,
        parts: BulkParts,
        source: Source,
        *,
        total: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self._parts = parts
        self._source = source
        self._total = total
        self._on_progress = on_progress
        self._clock = parts.clock
        self._began = self._clock.monotonic()
        self._window_rows = max(parts.window_bytes // parts.fetcher.terms.row_bytes, 1)
        self._open_rows = 0
        self._places = Places()
        self._pending: list[Item] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._moved = asyncio.Event()
        self._shrunk = asyncio.Event()
        self._blocked = self._at_end = False
        self._fatal: BaseException | None = None
        self._outage: Deferral | None = parts.hold
        self.tallies: dict[str, Tally] = {}
        self._all = Tally()  # ``progress`` is asked too often to add up days

    async def batches(self) -> AsyncGenerator[FilledBatch, None]:
        """The batches in order, each when its last row is decided.

        Raises:
            ProviderError: the provider stopped delivering. Whatever was complete has been
                handed out, and everything paid for is stored.
            StateError: the store refused.
            ServiceClosed: the service closed.

        Close it when you leave it early (``contextlib.aclosing``): what is out is stored when
        it comes within a minute; else, or where the reader is cancelled, booked as unknown.
        """
        intake = asyncio.create_task(self._intake())
        try:
            while True:
                while self._places.open and self._places.open[0].done:
                    batch = self._places.open.popleft()
                    self._open_rows -= len(batch.work)
                    self._shrunk.set()
                    yield batch.filled()
                if self._finished():
                    break
                await self._change()
            if self._fatal is not None:
                raise self._fatal
        finally:
            self.stop(ServiceClosed("this run has ended"))
            try:
                await let_in(self._tasks)
            finally:
                await finish(self._end(intake))

    def refused_so_far(self) -> list[tuple[WorkBatch, Mapping[int, Refusal]]]:
        """Batches not handed out, with the rows in them that are refused already."""
        return [(batch.work, batch.refused) for batch in self._places.open if batch.refused]

    def stop(self, reason: Exception) -> None:
        """Send nothing more; once what is out has come in, the reader gets ``reason``."""
        self._fail(reason)

    async def _end(self, intake: asyncio.Task[None]) -> None:
        """Leave nothing running and nothing open."""
        for task in (intake, *self._tasks):
            task.cancel()
        await asyncio.gather(intake, *self._tasks, return_exceptions=True)
        if isinstance(self._source, AsyncGenerator):
            await self._source.aclose()

    def progress(self) -> Progress:
        """How far this run is."""
        so_far = self._all
        return Progress(
            so_far.embedded + so_far.cached + so_far.quarantined + so_far.deferred,
            self._total,
            so_far.embedded,
            so_far.input_tokens,
            so_far.input_tokens * (self._parts.fetcher.terms.price or 0),
            self._clock.monotonic() - self._began,
        )

    def _finished(self) -> bool:
        if self._fatal is not None:
            return not self._tasks and not (self._places.open and self._places.open[0].done)
        return self._at_end and not self._places.open

    async def _change(self) -> None:
        """Wait until something moved."""
        await self._moved.wait()
        self._moved.clear()

    async def _intake(self) -> None:
        try:
            async for found in self._source:
                for works in fitting(found, self._window_rows):
                    if rows := sum(map(len, works)):
                        await self._room(rows)
                    if self._fatal is not None:
                        return
                    await self._take(works)
                    self._launch(final=False)
            self._launch(final=True)
            self._at_end = True
            self._moved.set()
        except BaseException as exc:  # handed to the reader of ``batches``, nothing is lost
            self._fail(exc)
            if not isinstance(exc, Exception):
                raise

    async def _room(self, rows: int) -> None:
        """Wait until the window has room for ``rows`` more."""
        most = self._window_rows - rows
        while self._places.open and self._open_rows > most and self._fatal is None:
            self._shrunk.clear()
            self._blocked = True
            self._unblock()
            await self._shrunk.wait()
            self._blocked = False

    def _unblock(self) -> None:
        """Nothing is out and the window is full: what is pending must go, full or not."""
        if self._blocked and not self._tasks:
            self._launch(final=True)

    async def _take(self, works: Sequence[WorkBatch]) -> None:
        """Look batches up; what is missing becomes pending, once a key."""
        batches = await self._parts.aside.run(self._prepare, works)
        for batch in batches:
            for tally in (self._tally(batch.work.partition), self._all):
                tally.chunks += len(batch.work)
                tally.quarantined += len(batch.prepared.refused)
            self._places.add(batch)
            self._open_rows += len(batch.work)
        items = list(chain.from_iterable(batch.prepared.items for batch in batches))
        if items:
            found = await self._parts.fetcher.find(items)
            held = await self._held(items, found)
            start = 0
            for batch in batches:
                part = slice(start, start + len(batch.prepared.items))
                self._sort_out(batch, found.vectors[part], found.found[part], held)
                start = part.stop
        self._announce()

    def _prepare(self, works: Sequence[WorkBatch]) -> list[OpenBatch]:
        width = self._parts.fetcher.terms.space.native_dimensions
        rules = self._parts.rules
        return [
            OpenBatch(work, rules.prepare(work.texts, work.tokens, work.accounts), width)
            for work in works
        ]

    async def _held(self, items: Sequence[Item], found: Lookup) -> Mapping[Digest, str]:
        """Which of the keys that were not found are refused for good, and why."""
        wanted = list({items[i].digest: None for i in np.flatnonzero(~found.found).tolist()})
        number = self._parts.fetcher.terms.space_id
        return await self._parts.store.read(lambda c: lasting(c, number, wanted)) if wanted else {}

    def _sort_out(
        self,
        batch: OpenBatch,
        vectors: Vectors,
        found: npt.NDArray[np.bool_],
        held: Mapping[Digest, str],
    ) -> None:
        """Rows of what was found are decided; what is refused for good is; the rest pends."""
        if not held and not found.any() and self._places.expect_all(batch):
            self._pending.extend(batch.prepared.items)
            return
        self._count(batch, batch.adopt(vectors, found), Row.CACHED)
        for position in np.flatnonzero(~found).tolist():
            item = batch.prepared.items[position]
            if item.digest in held:
                self._refuse(batch, position, Refusal(held[item.digest], attempted=False))
            elif self._places.expect(item.digest, batch, position):
                self._pending.append(item)

    def _launch(self, *, final: bool) -> None:
        """Send what makes full requests; with ``final``, everything pending."""
        if self._fatal is not None or not self._pending:
            return
        plans = plan_requests(
            np.array([item.tokens for item in self._pending]),
            np.array([item.estimate for item in self._pending]),
            self._parts.caps,
            final=final,
        )
        for plan in plans:
            self._spawn(self._pending[plan.start : plan.stop])
        if plans:
            self._pending = self._pending[plans[-1].stop :]

    def _spawn(self, items: Sequence[Item]) -> None:
        if self._outage is not None:
            self._leave(items, self._outage)
            return
        task = asyncio.create_task(self._fetch(items))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        try:
            self._unblock()
        except Exception as exc:  # noqa: BLE001 - handed to the reader, who would wait forever
            self._fail(exc)
        self._moved.set()

    async def _fetch(self, items: Sequence[Item]) -> None:
        fetcher, priority = self._parts.fetcher, self._parts.priority
        left = {item.digest for item in items}
        try:
            async with aclosing(fetcher.fetch(items, priority, self._is_wanted)) as landings:
                async for landing in landings:
                    self._land(items, landing)
                    left.difference_update(landing.digests, landing.refused, landing.deferred)
            rest = [item for item in items if item.digest in left]
            if rest and self._outage is not None:
                self._leave(rest, self._outage)
            elif rest and self._is_wanted():
                raise ServiceError("a text was neither embedded nor refused; please report this")
        except BaseException as exc:  # handed to the reader of ``batches``, nothing is lost
            if self._meet_outage([item for item in items if item.digest in left], exc):
                return
            self._fail(exc)
            if not isinstance(exc, Exception):
                raise

    def _meet_outage(self, left: Sequence[Item], exc: BaseException) -> bool:
        """Leave what was not delivered, and all that would be sent from here on, for later."""
        outage = self._parts.outage_of(exc)
        if outage is None or self._fatal is not None:
            return False
        if self._outage is None:
            log.warning("%s; what is left of this run is deferred", outage.message)
        self._outage = outage
        self._leave(left, outage)
        return True

    def _leave(self, items: Sequence[Item], outage: Deferral) -> None:
        """Nobody's money helps: every place of these texts is left for later."""
        for item in items:
            for batch, position in self._places.take(item.digest):
                self._count(batch, batch.defer(position, outage), Row.DEFERRED)
        self._announce()

    def _is_wanted(self) -> bool:
        return self._fatal is None and self._outage is None

    def _fail(self, exc: BaseException) -> None:
        if self._fatal is None:
            self._fatal = exc
        self._moved.set()
        self._shrunk.set()

    def _land(self, items: Sequence[Item], landing: Landing) -> None:
        for first, batch, positions, indexes in self._places.land(landing.digests):
            status = Row.EMBEDDED if landing.bought and first else Row.CACHED
            self._count(batch, batch.place(positions, landing.vectors, indexes, status), status)
        for digest, refusal in landing.refused.items():
            for batch, position in self._places.take(digest):
                self._refuse(batch, position, refusal)
        self._put_off(landing.deferred)
        self._account(items, landing)
        self._announce()

    def _account(self, items: Sequence[Item], landing: Landing) -> None:
        for account, tokens in landing.billed.items():
            for tally in (self._tally(account.partition), self._all):
                tally.input_tokens += tokens
        if not landing.requests:
            return
        for partition in {item.account.partition for item in items}:
            tally = self._tally(partition)
            tally.requests += landing.requests
            tally.retries += len(landing.attempts)
            tally.wait_seconds += landing.wait_seconds

    def _put_off(self, deferred: Mapping[Digest, Deferral]) -> None:
        """Leave texts for later; those that somebody else may have money for are asked again."""
        again = False
        for digest, deferral in deferred.items():
            places = self._places.take(digest)
            broke = payer_of(places[0]) if places else None
            for batch, position in (place for place in places if payer_of(place) == broke):
                self._count(batch, batch.defer(position, deferral), Row.DEFERRED)
            others = [place for place in places if payer_of(place) != broke]
            for batch, position in others:
                if self._places.expect(digest, batch, position):
                    self._pending.append(batch.prepared.items[position])
                    again = True
        if again:
            self._launch(final=self._at_end)

    def _refuse(self, batch: OpenBatch, position: int, refusal: Refusal) -> None:
        self._count(batch, batch.refuse(position, refusal), Row.REFUSED)

    def _count(self, batch: OpenBatch, rows: Rows, status: Row) -> None:
        for tally in (self._tally(batch.work.partition), self._all):
            if status is Row.EMBEDDED:
                tally.embedded += len(rows)
            elif status is Row.CACHED:
                tally.cached += len(rows)
                tally.saved_tokens += int(batch.work.tokens[rows].sum())
            elif status is Row.DEFERRED:
                tally.deferred += len(rows)
            else:
                tally.quarantined += len(rows)

    def _tally(self, partition: str) -> Tally:
        return self.tallies.setdefault(partition, Tally())

    def _announce(self) -> None:
        """Wake the reader where the first batch is done, and say how far the run is."""
        if self._places.open and self._places.open[0].done:
            self._moved.set()
        if self._on_progress is not None:
            self._on_progress(self.progress())
