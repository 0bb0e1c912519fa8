"""Single texts from many callers: those arriving within a few milliseconds share a request.

Belongs here: the queue, when it is emptied, and who goes first. ``choose`` decides,
``MicroBatcher`` acts. Does not belong here: fetching (``fetching``).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from embedding_pipeline.cache.memory import MemoryTier
from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import Overloaded, ServiceClosed, TextRefused
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import Digest, Priority
from embedding_pipeline.service.fetching import Fetcher
from embedding_pipeline.service.lanes import Waiting, rank
from embedding_pipeline.service.work import Item, Refusal

MAX_WAITING: Final = 20_000
"""Callers in the queue; further ones wait for room."""

PATIENCE_SECONDS: Final = 60.0
"""Longest wait for room in the queue, and for pending calls at close."""

Row = npt.NDArray[np.float32]


@dataclass(eq=False)
class Call:
    """One caller's text in the queue."""

    item: Item
    waiting: Waiting
    answer: asyncio.Future[Row] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


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
    ) -> None:
        self._fetcher = fetcher
        self._memory = memory
        self._caps = caps
        self._max_wait = max_wait_seconds
        self._clock = clock
        self._queue: list[Call] = []
        self._count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Task[None] | None = None
        self._room = asyncio.Condition()
        self._closed = False

    async def vector(self, item: Item, priority: Priority) -> Row:
        """The full vector of one text, shape ``(native_dimensions,)``, read-only.

        Raises:
            TextRefused: the provider refuses this text.
            ProviderError: the provider did not deliver.
            ServiceClosed: the service closes.
            Overloaded: the queue stayed full.
        """
        held = self._memory.get(item.digest)
        if held is not None:
            return held
        call = await self._enqueue(item, priority)
        try:
            return await call.answer
        finally:
            if call in self._queue:  # the caller gave up before the request left
                self._queue.remove(call)

    async def close(self) -> None:
        """Serve what is waiting, within bounds; refuse what remains and what comes."""
        self._closed = True
        while self._queue:
            self._send()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        async with self._room:
            self._room.notify_all()

    async def _enqueue(self, item: Item, priority: Priority) -> Call:
        async with self._room:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._room.wait_for(
                        lambda: self._closed or len(self._queue) < MAX_WAITING
                    )
            except TimeoutError as exc:
                raise Overloaded(
                    f"{MAX_WAITING} texts have been waiting for {PATIENCE_SECONDS:.0f} s; "
                    "send fewer at a time, or raise limits.max_in_flight"
                ) from exc
        if self._closed:
            raise ServiceClosed("the embedding service is closed; open a new one")
        self._count += 1
        call = Call(item, Waiting(priority, self._clock.monotonic(), self._count))
        self._queue.append(call)
        self._arm()
        return call

    def _arm(self) -> None:
        """Send at once when a request is full, else when the first caller's time is up."""
        full = (
            len(self._queue) >= self._caps.max_inputs
            or sum(call.item.tokens for call in self._queue[-self._caps.max_inputs :])
            >= self._caps.aim
        )
        if full:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.create_task(self._later())

    async def _later(self) -> None:
        await self._clock.sleep(self._max_wait)
        self._timer = None
        while self._queue:
            self._send()

    def _send(self) -> None:
        chosen = choose(self._queue, self._caps, self._clock.monotonic())
        gone = set(map(id, chosen))
        self._queue = [call for call in self._queue if id(call) not in gone]
        task = asyncio.create_task(self._serve(chosen))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, calls: Sequence[Call]) -> None:
        try:
            async with self._room:
                self._room.notify_all()
            await self._answer(calls)
        except asyncio.CancelledError:
            _fail(calls, ServiceClosed("the service closed before this text was embedded"))
            raise
        except Exception as exc:  # every caller gets it; none is left waiting
            _fail(calls, exc)

    async def _answer(self, calls: Sequence[Call]) -> None:
        wanted = {call.item.digest: call.item for call in calls if not call.answer.done()}
        digests = list(wanted)
        stored = await self._fetcher.lookup(digests)
        rows = {digests[i]: stored.vectors[i] for i in np.flatnonzero(stored.found)}
        self._hand_out(calls, rows, {})
        missing = [wanted[digest] for digest in digests if digest not in rows]
        if missing:
            priority = min((c.waiting.priority for c in calls), key=list(Priority).index)
            async for landing in self._fetcher.fetch(missing, priority):
                rows = dict(zip(landing.digests, landing.vectors, strict=True))
                self._hand_out(calls, rows, dict(landing.refused))

    def _hand_out(
        self, calls: Sequence[Call], rows: dict[Digest, Row], refused: dict[Digest, Refusal]
    ) -> None:
        if rows:
            self._memory.put_many(list(rows), np.stack(list(rows.values())))
        for call in calls:
            if call.answer.done():
                continue
            if call.item.digest in rows:
                call.answer.set_result(rows[call.item.digest].copy())
            elif call.item.digest in refused:
                call.answer.set_exception(refusal(refused[call.item.digest]))


def refusal(why: Refusal, row: int = 0) -> TextRefused:
    """The error a caller gets for text number ``row`` of its call, which has no vector."""
    code = f" ({why.code})" if why.code else ""
    return TextRefused(why.reason, f"text {row} cannot be embedded: {why.reason}{code}")


def _fail(calls: Sequence[Call], exc: Exception) -> None:
    for call in calls:
        if not call.answer.done():
            call.answer.set_exception(exc)
