"""Getting vectors for keys: stored, in flight elsewhere, or bought now.

Belongs here: one group of keys until every one of them has its vector or its refusal. Does
not belong here: what goes into a group (``bulk``, ``online``), the transactions of a flight
(``flying``), or which text is to blame (``isolating``).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np

from embedding_pipeline.cache.stack import Stack
from embedding_pipeline.cache.stats import Tally
from embedding_pipeline.cache.tier import Lookup
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.again import before_again
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.errors import (
    BudgetExceeded,
    InputRefused,
    InvalidReply,
    ProviderFault,
    RequestTooLarge,
    ServiceClosed,
    StateError,
)
from embedding_pipeline.ledger.deferred import BUDGET
from embedding_pipeline.ledger.shares import shares_of
from embedding_pipeline.limits.callers import Caller, on_behalf_of
from embedding_pipeline.records import Attempt, Digest, EmbeddingResult, Priority
from embedding_pipeline.service.attempts import attempts_of
from embedding_pipeline.service.finishing import finish
from embedding_pipeline.service.flight import Flying, Terms
from embedding_pipeline.service.flying import Books
from embedding_pipeline.service.isolating import Blame, Piece, blame, halves, refusal_of
from embedding_pipeline.service.lanes import Lanes
from embedding_pipeline.service.purse import Purse
from embedding_pipeline.service.work import Deferral, Item, Landing
from embedding_pipeline.state.store import Store

POLL_SECONDS: Final = (0.05, 1.0)
"""First and longest pause while another process fetches a key."""

HOPELESS: Final = 8
"""So many single texts of a request answered with an invalid reply, and not one delivered:
it is not the texts. Each attempt may be billed, so the search ends (requests of at least
four times as many texts; smaller ones are searched to the end)."""


def always() -> bool:
    """Work that is wanted whatever happens."""
    return True


@dataclass(frozen=True)
class _Flown:
    """How a flight ended.

    Attributes:
        landing: what landed.
        elsewhere: what others have or fetch.
        error: what stopped it.
        waiting: keys there is no money for while others have it reserved.
    """

    landing: Landing | None
    elsewhere: Sequence[Item]
    error: Exception | None
    waiting: Sequence[Item] = ()


_NOTHING: Final = _Flown(None, (), None)


class Fetcher:
    """Fetches keys of one space. Concurrent calls are fine, also in other processes."""

    def __init__(
        self,
        store: Store,
        cache: Stack,
        embedder: Embedder,
        terms: Terms,
        lanes: Lanes,
        clock: Clock,
        *,
        tally: Tally,
        purse: Purse | None = None,
    ) -> None:
        self.cache = cache
        self._embedder = embedder
        self.terms = terms
        self._lanes = lanes
        self._clock = clock
        self.tally = tally
        self._books = Books(store, terms, clock, purse)
        self._closed = False
        self._flights: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()

    async def lookup(self, digests: Sequence[Digest]) -> Lookup:
        """What is cached."""
        found, _ = await self.cache.get_many(digests)
        return found

    async def find(self, items: Sequence[Item], cache: Stack | None = None) -> Lookup:
        """What is cached of these, counted for their projects."""
        found, answers = await (cache or self.cache).get_many([item.digest for item in items])
        projects = [item.account.project for item in items]
        for answer in answers:
            asked = answer.positions.tolist()
            own = projects if len(asked) == len(items) else [projects[i] for i in asked]
            self.tally.count(answer.tier, own, answer.found, answer.damaged)
        return found

    async def fetch(
        self, items: Sequence[Item], priority: Priority, wanted: Callable[[], bool] = always
    ) -> AsyncGenerator[Landing, None]:
        """Deliver every item, as landings: bought ones first, then what others bring.

        What there is no money for is not waited for: it lands as deferred.

        Args:
            items: keys with their texts.
            priority: the lane of the requests.
            wanted: asked again when a slot is free and after each wait; when it says no,
                nothing more is sent and what is left is not delivered.

        Raises:
            ProviderError: the provider stopped delivering; what landed before is handed out.
            StateError: the store refused, or another process keeps a key for too long.
            ServiceClosed: the service closed before the request could leave.
        """
        rest: Sequence[Item] = list({item.digest: item for item in items}.values())
        pause, waited = POLL_SECONDS[0], 0.0
        while rest and wanted():
            flown = await self._fly(rest, priority, wanted)
            if flown.landing is not None:
                yield flown.landing
            if flown.error is not None:
                raise flown.error
            found = await self._stored(flown.elsewhere)
            if found.digests:
                yield found
            if flown.landing is not None or found.digests:
                pause, waited = POLL_SECONDS[0], 0.0
            there = set(found.digests)
            rest = [item for item in flown.elsewhere if item.digest not in there]
            if flown.waiting and waited >= self.terms.patience_seconds:
                yield self._too_late(flown.waiting)
            else:
                rest.extend(flown.waiting)
            if rest:
                if not flown.waiting:
                    self._lose_patience(waited)
                await self._clock.sleep(pause)
                pause, waited = min(pause * 2, POLL_SECONDS[1]), waited + pause

    async def close(self, patience_seconds: float) -> None:
        """Let requests that are out come in, within bounds; cut the rest off; send no more."""
        self._closed = True
        with suppress(TimeoutError):
            async with asyncio.timeout(patience_seconds):
                while self._flights:
                    self._idle.clear()
                    await self._idle.wait()
        left = set(self._flights)
        for task in left:
            task.cancel()
        if left:  # each books what may have been billed
            await asyncio.wait(left, timeout=patience_seconds)

    def _too_late(self, items: Sequence[Item]) -> Landing:
        why = Deferral(
            BUDGET,
            "what is left of a budget has been reserved by other requests for over "
            f"{self.terms.patience_seconds:.0f} s; try again when they have ended",
        )
        nothing = np.zeros((0, self.terms.space.native_dimensions), np.float32)
        return Landing((), nothing, False, deferred={item.digest: why for item in items})

    def _lose_patience(self, waited: float) -> None:
        patience = self.terms.patience_seconds
        if waited >= patience:
            raise StateError(
                f"another process has been fetching the same texts for over {patience:.0f} s; "
                "end it, or run again later"
            )

    async def _stored(self, items: Sequence[Item]) -> Landing:
        if not items:
            return Landing((), np.zeros((0, self.terms.space.native_dimensions), np.float32), False)
        digests = [item.digest for item in items]
        found = await self.lookup(digests)
        there = np.flatnonzero(found.found)
        return Landing([digests[i] for i in there], found.vectors[there], bought=False)

    async def _fly(
        self, items: Sequence[Item], priority: Priority, wanted: Callable[[], bool]
    ) -> _Flown:
        """Claim what is free and buy it."""
        async with self._lanes.slot(priority):
            if not wanted():
                return _NOTHING
            with self._under_way():
                return await self._take_off(items, priority)

    async def _take_off(self, items: Sequence[Item], priority: Priority) -> _Flown:
        flying = self._books.new()
        elsewhere: Sequence[Item] = ()
        broke: Sequence[Item] = ()
        error: Exception | None = None
        try:
            elsewhere = await finish(self._books.begin(flying, items))
            await self._deliver(flying, priority)
        except BudgetExceeded as exc:  # what is left asks for money again, in smaller parts
            broke = list(flying.left.values())
            await finish(self._books.abandon(flying, exc))
        except BaseException as exc:
            await finish(self._books.abandon(flying, exc))
            if not isinstance(exc, Exception):
                raise
            error = exc
        landed = flying.digests or flying.refused or flying.requests or flying.deferred
        landing = flying.landing() if landed else None
        return _Flown(landing, elsewhere, error, [*flying.waiting, *broke])

    async def _deliver(self, flying: Flying, priority: Priority) -> None:
        """Send all keys as one request; split it where it is refused."""
        todo = [Piece(list(flying.left.values()))] if flying.left else []
        while todo:
            piece = todo.pop()
            if piece.guilty and len(piece.items) > 1:
                todo.extend(reversed(halves(piece, certain=True)))
                continue
            with on_behalf_of(_payer(piece.items), priority) as caller:
                verdict = await self._send(flying, piece, caller)
            if verdict is not None:
                todo.extend(reversed(verdict.pieces))
            elif piece.clears:
                todo[-1] = replace(todo[-1], guilty=True)

    async def _send(self, flying: Flying, piece: Piece, caller: Caller) -> Blame | None:
        """One request. None: delivered and settled; else what is to be done instead."""
        flying.out, flying.booked = piece.items, 0
        try:
            with before_again(partial(self._lose, flying, piece.items)):
                result = await self._embedder.embed([item.text for item in piece.items])
            self._require_matrix(result, len(piece.items))
        except (InputRefused, RequestTooLarge, InvalidReply) as exc:
            await finish(self._books.fail(flying, piece.items, exc))
            verdict = blame(piece, exc)
            if verdict.culprit is not None:
                self._give_up_hopeless(flying, exc)
                await finish(self._books.refuse(flying, verdict.culprit, refusal_of(exc)))
            return verdict
        except asyncio.CancelledError:
            if caller.unsent:
                flying.out = ()
            raise
        flying.limited_seconds += result.limited_seconds
        flying.unbooked_ms += round(result.limited_seconds * 1000)
        await finish(self._books.settle(flying, piece.items, result))
        await self.cache.put_many([item.digest for item in piece.items], result.vectors)
        return None

    async def _lose(self, flying: Flying, items: Sequence[Item], attempt: Attempt) -> None:
        await finish(self._books.lose(flying, items, attempt))

    def _require_matrix(self, result: EmbeddingResult, texts: int) -> None:
        """Whatever the embedder: what is stored under these keys has their number and width."""
        expected = (texts, self.terms.space.native_dimensions)
        if result.vectors.shape != expected:
            error = InvalidReply(
                f"{result.provider} delivered vectors of shape {result.vectors.shape}, "
                f"expected {expected}; check the model and the provider",
                ProviderFault(result.provider, maybe_billed=True),
            )
            error.attempts = (*result.attempts, *attempts_of(error))
            raise error

    def _give_up_hopeless(self, flying: Flying, exc: Exception) -> None:
        texts, tried = len(flying.left) + len(flying.refused), len(flying.refused) + 1
        if not isinstance(exc, InvalidReply) or flying.digests:
            return
        if tried >= HOPELESS and texts >= 4 * HOPELESS:
            raise InvalidReply(
                f"{tried} texts were sent one by one and every reply was invalid: it is not the "
                "texts. Check the provider and the model",
                exc.fault,
            ) from exc

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        if self._closed:
            raise ServiceClosed("the embedding service closed before this request; open a new one")
        task = asyncio.current_task()
        assert task is not None
        self._flights.add(task)
        try:
            yield
        finally:
            self._flights.discard(task)
            if not self._flights:
                self._idle.set()


def _payer(items: Sequence[Item]) -> str:
    """The project with most of the tokens; the rate limit counts the request for it."""
    tokens: dict[str, int] = {}
    for share in shares_of([item.account for item in items], [item.tokens for item in items]):
        project = share.account.project
        tokens[project] = tokens.get(project, 0) + share.tokens
    return max(tokens, key=tokens.__getitem__)
