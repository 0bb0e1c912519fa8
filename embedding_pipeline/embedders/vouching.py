"""A compatible server beside other providers: not used before it is known to be the same model.

Belongs here: comparing its vectors of a few known texts, before its first use and whenever
it names another model. Does not belong here: what is stored of it (``vouchers``), or where
known texts come from (``assembly``).

That a server speaks like OpenAI says nothing about which model answers, and vectors of
another model among those of a space cannot be told apart later. So nothing of such a
server is believed until somebody has looked. What the check costs is in the ledger, under
a project of its own.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from sqlalchemy import Connection

from embedding_pipeline.cache.database import space_id
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders import vouchers
from embedding_pipeline.embedders.base import Embedder, Wrapper
from embedding_pipeline.embedders.booking import Booking
from embedding_pipeline.embedders.vouchers import LEAST_SIMILARITY, Stance, Voucher
from embedding_pipeline.errors import (
    BudgetExceeded,
    EmbeddingPipelineError,
    ProviderError,
    ProviderFault,
    ProviderRefused,
)
from embedding_pipeline.records import EmbeddingResult, Vectors
from embedding_pipeline.state.store import Store

CHECK_SECONDS: Final = 20.0
"""Longest a check may take; within ``vouchers.LEASE_SECONDS``."""

LOOK_SECONDS: Final = 0.5
"""How often somebody who waits for another's check looks for its end."""

AGAIN_SECONDS: Final = 60.0
"""How long nothing is tried where a check could not be made."""

KNOWN_TEXTS: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "Invoices are paid within thirty days of receipt, without deduction.",
    "def area(radius: float) -> float:\n    return 3.14159 * radius**2",
    "Die Katze schläft auf dem warmen Fensterbrett, während es draußen regnet.",
)
"""For where no text with a stored vector is at hand: another provider is asked for theirs."""

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Known:
    """Texts and their vectors in the space, shape ``(len(texts), native_dimensions)``."""

    texts: Sequence[str]
    vectors: Vectors


FindKnown = Callable[[], Awaitable[Known | None]]
"""Texts whose vectors are stored, a handful; None where there are none."""


class Vouching(Wrapper):
    """One compatible server.

    Args:
        wrapped: its chain.
        provider: its name in the settings.
        identity: its name, address and deployment: another address is another server.
        references: chains of providers that need no check, to be asked for vectors of known
            texts, in order.
        known: texts with stored vectors.
        store: opens the shared store, or gives the one that is open.
        booking: makes the calls of a check.
        clock: time.
        on_close: closes the store; called from a thread.

    Raises (from ``embed``):
        ProviderRefused: it makes other vectors, or nothing is known to compare them with.
    """

    def __init__(
        self,
        wrapped: Embedder,
        provider: str,
        identity: str,
        *,
        references: Sequence[tuple[str, Embedder]],
        known: FindKnown,
        store: Callable[[], Store],
        booking: Booking,
        clock: Clock,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(wrapped)
        self._provider = provider
        self._identity = identity[:512]
        self._references = references
        self._known = known
        self._store = store
        self._booking = booking
        self._clock = clock
        self._on_close = on_close
        self._holder = uuid.uuid4().hex
        self._lock = asyncio.Lock()
        self._trusted: str | None = None
        self._refusal: ProviderRefused | None = None
        self._refused_until = 0.0

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        await self.vouch()
        result = await self.wrapped.embed(texts)
        if result.model != self._trusted:
            await self._vouch_again(result)
        return result

    async def aclose(self) -> None:
        try:
            await self.wrapped.aclose()
        finally:
            await asyncio.to_thread(self._on_close)

    def standing_refusal(self) -> ProviderRefused | None:
        """What a call would be told now, without anything being looked up or sent."""
        if self._refusal is None or self._clock.monotonic() >= self._refused_until:
            return None
        return self._refusal

    async def vouch(self, reported: str | None = None) -> None:
        """Make sure that it makes the vectors of the space; checks where nothing is known.

        Raises:
            ProviderRefused: it does not, or that cannot be found out now.
            ProviderError: it does not answer.
            StateError: the store cannot be used.
        """
        async with self._lock:
            if self._trusted is not None and reported in (None, self._trusted):
                return
            refusal = self.standing_refusal()
            if refusal is not None:
                raise refusal
            self._take(await self._found(reported))

    async def _vouch_again(self, result: EmbeddingResult) -> None:
        """It names another model than the one that was checked. What it sent was billed."""
        log.warning("%s now calls its model %r; it is checked", self._provider, result.model)
        try:
            await self.vouch(result.model)
        except ProviderError as error:
            fault = replace(error.fault, maybe_billed=True)
            raise ProviderRefused(str(error), fault) from error
        if result.model != self._trusted:  # it answers by turns with this one and that one
            self._trusted = None
            raise self._refuse("its replies name several models")

    def _take(self, found: Voucher) -> None:
        if found.same:
            self._trusted = found.model
            return
        self._trusted = None
        raise self._refuse(
            f"it is another model: of {found.texts} known texts its vectors have a similarity "
            f"of {found.similarity:.3f} at worst, and {LEAST_SIMILARITY} is the least",
        )

    def _refuse(self, why: str, seconds: float = vouchers.HOLD_SECONDS) -> ProviderRefused:
        """Say so now, and to everybody who asks for a while."""
        self._refusal = ProviderRefused(
            f"{self._provider} is not used for {self.space}: {why}; correct it in providers, "
            "or take it out",
            ProviderFault(self._provider, code="other_model"),
        )
        self._refused_until = self._clock.monotonic() + seconds
        return self._refusal

    async def _found(self, reported: str | None) -> Voucher:
        """What is known of it, once somebody has looked."""
        deadline = self._clock.monotonic() + vouchers.LEASE_SECONDS + CHECK_SECONDS
        while self._clock.monotonic() < deadline:
            step, found = await self._claim(reported)
            if step is Stance.CHECK:
                return await self._check()
            if step is not Stance.WAIT and found is not None:
                return found
            await self._clock.sleep(LOOK_SECONDS)
        raise self._refuse("another process has been checking it for too long", AGAIN_SECONDS)

    async def _claim(self, reported: str | None) -> tuple[Stance, Voucher | None]:
        """What to do; where that is a check, it is ours from here on: one atomic step."""

        def work(connection: Connection) -> tuple[Stance, Voucher | None]:
            number, now = space_id(connection, self.space), self._now_ms()
            found = vouchers.find(connection, number, self._identity)
            step = vouchers.stance(found, reported, now)
            if step is Stance.CHECK:
                vouchers.lease(connection, number, self._identity, self._holder, now)
            return step, found

        return await self._write(work)

    async def _check(self) -> Voucher:
        """Compare, and write down what that shows; where nothing is found, others may try."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                found = await self._compare()
        except (TimeoutError, BudgetExceeded) as error:
            await self._release()
            why = str(error) or f"its check took more than {CHECK_SECONDS:g} s"
            raise self._refuse(why, AGAIN_SECONDS) from None
        except BaseException:
            await asyncio.shield(self._release())
            raise

        def work(connection: Connection) -> None:
            vouchers.keep(connection, space_id(connection, self.space), self._identity, found)

        await self._write(work)
        told = log.info if found.same else log.warning
        told(
            "%s was compared on %d known texts: a similarity of %.4f at worst",
            self._provider,
            found.texts,
            found.similarity,
        )
        return found

    async def _compare(self) -> Voucher:
        known = await self._known() or await self._ask_references()
        if known is None:
            raise self._refuse(
                "nothing is known to compare it with: no vectors are stored, and no provider "
                "that needs no check answers",
                AGAIN_SECONDS,
            )
        result = await self._booking.call(self.wrapped, self._provider, known.texts)
        least = vouchers.least_similarity(known.vectors, result.vectors)
        same = least >= LEAST_SIMILARITY
        return Voucher(result.model, same, least, len(known.texts), self._now_ms())

    async def _ask_references(self) -> Known | None:
        for name, embedder in self._references:
            try:
                result = await self._booking.call(embedder, name, KNOWN_TEXTS)
            except ProviderError as error:
                log.info("%s cannot be compared with %s: %s", self._provider, name, error)
                continue
            return Known(KNOWN_TEXTS, result.vectors)
        return None

    async def _release(self) -> None:
        def work(connection: Connection) -> None:
            number = space_id(connection, self.space)
            vouchers.release(connection, number, self._identity, self._holder)

        try:
            await self._write(work)
        except EmbeddingPipelineError as error:  # then the lease runs out
            log.warning("the check of %s is not given up yet: %s", self._provider, error)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        store = await asyncio.to_thread(self._store)
        return await store.write(work)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)
