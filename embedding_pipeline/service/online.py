"""Single texts from many callers: those arriving within a few milliseconds share a request.

Belongs here: the queue, when it is emptied, and who goes first. ``choose`` decides,
``MicroBatcher`` acts. Does not belong here: fetching (``fetching``).
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from embedding_pipeline.cache.memory import MemoryTier
from embedding_pipeline.cache.stats import Asked
from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import (
    BudgetExceeded,
    InBatch,
    Overloaded,
    ServiceClosed,
    ServiceError,
    TextRefused,
)
from embedding_pipeline.ledger.deferred import BATCH_API
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import Digest, Priority
from embedding_pipeline.service.fetching import Fetcher
from embedding_pipeline.service.lanes import Waiting, rank
from embedding_pipeline.service.work import Deferral, Item, Refusal

MAX_WAITING: Final = 20_000
"""Texts that are waited for at a time, queued or on their way; further callers wait."""

HIT: Final = Asked(hits=1)

PATIENCE_SECONDS: Final = 60.0
"""Longest wait for room, and for pending calls at close."""

Row = npt.NDArray[np.float32]


@dataclass(eq=False)
class Call:
    """One caller's text in the queue."""

    item: Item
    waiting: Waiting
    answer: asyncio.Future[Row] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def weight(self) -> int:
        """Its tokens, by whichever count is higher."""
        return max(self.item.tokens, self.item.estimate)


def choose(calls: Sequence[Call], caps: RequestCaps, now: float) -> list[Call]:
    """The calls of the next request: by rank, as many as the caps allow (at least one).

    Calls for one key count once. A call that does not fit is passed over, so that a
    short one behind it may use the room.
    """
    chosen: list[Call] = []
    keys: set[Digest] = set()
    tokens = estimate = 0
    for call in sorted(calls, key=lambda call: rank(call.waiting, now)):
        if call.item.digest in keys:
            chosen.append(call)
            continue
        fits = tokens + call.item.tokens <= caps.aim and estimate + call.item.estimate <= caps.aim
        if chosen and (not fits or len(keys) >= caps.max_inputs):
            continue
        chosen.append(call)
        keys.add(call.item.digest)
        tokens, estimate = tokens + call.item.tokens, estimate + call.item.estimate
    return chosen


class MicroBatcher:
    """Serves single texts. Open while its service is; ``close`` finishes or refuses."""

    def __init__(
        self,
        fetcher: Fetcher,
        memory: MemoryTier,
        caps: RequestCaps,
        max_wait_seconds: float,
        clock: Clock,
        *,
        max_waiting: int = MAX_WAITING,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._fetcher = fetcher
        self._cache = fetcher.cache.under(memory) if memory.max_bytes else fetcher.cache
        self._memory = memory
        self._caps = caps
        self._max_wait = max_wait_seconds
        self._clock = clock
        self._max_waiting = max_waiting
        self._patience = patience_seconds
        self._room = asyncio.Semaphore(max_waiting)
        self._queue: dict[int, Call] = {}
        self._queued_tokens = 0
        self._count = 0
        self._groups: dict[Digest, list[Call]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Task[None] | None = None
        self._closed = False

    async def vector(self, item: Item, priority: Priority) -> Row:
        """The full vector of one text, shape ``(native_dimensions,)``, read-only.

        Raises:
            TextRefused: the provider refuses this text.
            BudgetExceeded: there is no money for it.
            InBatch: a batch of the Batch API holds it.
            ProviderError: the provider did not deliver.
            ServiceClosed: the service closes.
            Overloaded: there was no room for too long.
        """
        held = self._memory.get(item.digest)
        if held is not None:
            self._fetcher.tally.add(self._memory.name, item.account.project, HIT)
            return held
        await self._enter()
        try:
            call = self._join(item, priority)
            try:
                return await call.answer
            finally:
                self._leave(call)
                if call.answer.done() and not call.answer.cancelled():
                    call.answer.exception()  # seen, should the caller have given up just now
        finally:
            self._room.release()

    async def close(self) -> None:
        """Serve what is waiting, within bounds; refuse what remains and what comes."""
        self._closed = True
        while self._queue:
            self._send()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._patience)
        left = [*self._tasks, self._timer] if self._timer else list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _enter(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._room.acquire()
        except TimeoutError as exc:
            raise Overloaded(
                f"{self._max_waiting} texts have been waited for without room for another for "
                f"{self._patience:.0f} s; send fewer at a time, or raise limits.max_in_flight"
            ) from exc

    def _join(self, item: Item, priority: Priority) -> Call:
        if self._closed:
            raise ServiceClosed("the embedding service is closed; open a new one")
        self._count += 1
        call = Call(item, Waiting(priority, self._clock.monotonic(), self._count))
        group = self._groups.get(item.digest)
        if group is not None:  # its request is out already
            group.append(call)
            return call
        self._queue[call.waiting.number] = call
        self._queued_tokens += call.weight
        self._arm()
        return call

    def _leave(self, call: Call) -> None:
        """The caller is served, or gave up before the request left."""
        if self._queue.pop(call.waiting.number, None) is not None:
            self._queued_tokens -= call.weight

    def _arm(self) -> None:
        """Send at once when a request is full, else when the first caller's time is up."""
        caps = self._caps
        if len(self._queue) >= caps.max_inputs or self._queued_tokens >= caps.aim:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.create_task(self._later())

    async def _later(self) -> None:
        await self._clock.sleep(self._max_wait)
        self._timer = None
        while self._queue:
            self._send()

    def _send(self) -> None:
        chosen = choose(list(self._queue.values()), self._caps, self._clock.monotonic())
        for call in chosen:
            self._leave(call)
            self._groups[call.item.digest] = chosen
        if not self._queue and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        task = asyncio.create_task(self._serve(chosen))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, calls: list[Call]) -> None:
        """Answer a request's calls, and those for its texts that join while it is out."""
        failure: Exception = ServiceError("no answer came for a text; please report this")
        try:
            await self._answer(calls)
        except asyncio.CancelledError:
            failure = ServiceClosed("the service closed before this text was embedded")
            raise
        except Exception as exc:  # noqa: BLE001 - every caller gets it
            failure = exc
        finally:
            self._settle(calls, {call.item.digest for call in calls})
            _fail(calls, failure)  # none is left waiting, whatever happened

    async def _answer(self, calls: list[Call]) -> None:
        wanted = {call.item.digest: call.item for call in calls if not call.answer.done()}
        self._settle(calls, {call.item.digest for call in calls} - wanted.keys())
        digests = list(wanted)
        stored = await self._fetcher.find(list(wanted.values()), self._cache)
        self._hand_out(calls, {digests[i]: stored.vectors[i] for i in np.flatnonzero(stored.found)})
        missing = [wanted[digests[i]] for i in np.flatnonzero(~stored.found)]
        if missing:
            await self._buy(calls, missing)

    async def _buy(self, calls: list[Call], missing: Sequence[Item]) -> None:
        """Fetch what nobody has; a text one caller has no money for is tried for the next."""
        priority = min((c.waiting.priority for c in calls), key=list(Priority).index)
        deferred: dict[Digest, Deferral] = {}
        async with aclosing(self._fetcher.fetch(missing, priority)) as landings:
            async for landing in landings:
                self._memory.put(landing.digests, landing.vectors)
                self._hand_out(calls, dict(zip(landing.digests, landing.vectors, strict=True)))
                self._refuse(calls, landing.refused)
                deferred.update(landing.deferred)
        payers = {item.digest: _payer(item) for item in missing if item.digest in deferred}
        others: dict[Digest, Item] = {}
        for call in calls:
            digest = call.item.digest
            if digest not in payers or call.answer.done():
                continue
            if _payer(call.item) == payers[digest]:
                call.answer.set_exception(_put_off(deferred[digest]))
            else:
                others[digest] = call.item
        self._settle(calls, payers.keys() - others.keys())
        if others:
            await self._buy(calls, list(others.values()))

    def _hand_out(self, calls: Sequence[Call], rows: dict[Digest, Row]) -> None:
        for call in calls:
            row = rows.get(call.item.digest)
            if row is not None and not call.answer.done():
                call.answer.set_result(_own(row))
        self._settle(calls, rows)

    def _refuse(self, calls: Sequence[Call], refused: Mapping[Digest, Refusal]) -> None:
        for call in calls:
            why = refused.get(call.item.digest)
            if why is not None and not call.answer.done():
                call.answer.set_exception(refusal(why))
        self._settle(calls, refused)

    def _settle(self, calls: Sequence[Call], digests: Iterable[Digest]) -> None:
        """Whoever asks for these from now on is not answered by this request any more."""
        for digest in digests:
            if self._groups.get(digest) is calls:
                del self._groups[digest]


def _payer(item: Item) -> tuple[str, str]:
    return item.account.project, item.account.user


def _put_off(why: Deferral) -> Exception:
    """What a caller is told whose text is left for later."""
    return (InBatch if why.reason == BATCH_API else BudgetExceeded)(why.message)


def _own(row: Row) -> Row:
    """A row of its own, so that one caller does not keep a whole request's vectors."""
    own = row.copy()
    own.flags.writeable = False
    return own


def refusal(why: Refusal, row: int = 0) -> TextRefused:
    """The error a caller gets for text number ``row`` of its call, which has no vector."""
    code = f" ({why.code})" if why.code else ""
    return TextRefused(why.reason, f"text {row} cannot be embedded: {why.reason}{code}")


def _fail(calls: Sequence[Call], exc: Exception) -> None:
    for call in calls:
        if not call.answer.done():
            call.answer.set_exception(exc)
