"""Getting vectors for keys: stored, in flight elsewhere, or bought now.

Belongs here: one group of keys from claim to settlement. Does not belong here: what
goes into a group (``bulk``, ``online``), or any statement (``cache``, ``ledger``).

Every step that other processes can see is one transaction: ``begin`` claims the keys
and writes down that a request leaves; ``settle`` stores the vectors, books the bill and
gives the claims back. Killed in between, the next process books ``unknown`` and retries.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from sqlalchemy import Connection

from embedding_pipeline.cache import claims, database
from embedding_pipeline.cache.database import Lookup
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.errors import (
    EmbeddingPipelineError,
    InputRefused,
    InvalidReply,
    ProviderError,
    RequestTooLarge,
    StateError,
)
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.ledger.quarantine import BAD_REPLY, REFUSED
from embedding_pipeline.ledger.shares import divide, shares_of
from embedding_pipeline.planning.inputs import TOO_LONG
from embedding_pipeline.records import (
    Account,
    Attempt,
    Digest,
    EmbeddingResult,
    Kind,
    Priority,
    Space,
    Vectors,
)
from embedding_pipeline.service.lanes import Lanes
from embedding_pipeline.service.work import Item, Landing, Refusal
from embedding_pipeline.state import owners
from embedding_pipeline.state.store import Store

log = logging.getLogger(__name__)

POLL_SECONDS: Final = (0.05, 1.0)
"""First and longest pause while another process fetches a key."""


@dataclass(frozen=True)
class Terms:
    """What every request of a service has in common.

    Attributes:
        space: the space of all vectors.
        space_id: its number in the store.
        kind: ``api`` or ``local``.
        provider: name of the provider asked first.
        price: nano-USD a token, None where unknown.
        dtype: how vectors are stored.
        run_id: the run, or "".
        owner_id: the service's lease.
        patience_seconds: longest wait for another process's request.
    """

    space: Space
    space_id: int
    kind: Kind
    provider: str
    price: int | None
    dtype: str
    run_id: str
    owner_id: str
    patience_seconds: float


@dataclass
class _Flying:
    """A flight under way: what is still out and what has come in."""

    flight: Flight
    left: dict[Digest, Item]
    width: int
    digests: list[Digest] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)
    refused: dict[Digest, Refusal] = field(default_factory=dict)
    billed: dict[Account, int] = field(default_factory=dict)
    requests: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    def landing(self) -> Landing:
        whole = self.vectors[0] if len(self.vectors) == 1 else self._joined()
        return Landing(
            self.digests, whole, True, self.refused, self.billed, self.requests, self.attempts
        )

    def _joined(self) -> Vectors:
        return np.concatenate([np.zeros((0, self.width), np.float32), *self.vectors])


class Fetcher:
    """Fetches keys of one space. Concurrent calls are fine, also in other processes."""

    def __init__(
        self, store: Store, embedder: Embedder, terms: Terms, lanes: Lanes, clock: Clock
    ) -> None:
        self._store = store
        self._embedder = embedder
        self.terms = terms
        self._lanes = lanes
        self._clock = clock

    async def lookup(self, digests: Sequence[Digest]) -> Lookup:
        """What is stored. Damaged entries are removed, so that they are bought again."""
        terms = self.terms
        found = await self._store.read(
            lambda c: database.get_many(c, terms.space_id, terms.space, digests)
        )
        if found.damaged:
            log.warning("%d damaged cache entries removed; bought again", len(found.damaged))
            await self._store.write(lambda c: database.forget(c, terms.space_id, found.damaged))
        return found

    async def fetch(self, items: Sequence[Item], priority: Priority) -> AsyncIterator[Landing]:
        """Deliver every item, as landings: bought ones first, then what others bring.

        Raises:
            ProviderError: the provider stopped delivering; what had landed is settled.
            StateError: the store refused, or another process keeps a key for too long.
        """
        deadline = self._clock.monotonic() + self.terms.patience_seconds
        wanted: Sequence[Item] = items
        pause = POLL_SECONDS[0]
        while wanted:
            landing, elsewhere = await self._fly(wanted, priority)
            if landing is not None:
                yield landing
                pause = POLL_SECONDS[0]
            if not elsewhere:
                return
            found = await self._stored(elsewhere)
            if found.digests:
                yield found
            there = set(found.digests)
            wanted = [item for item in elsewhere if item.digest not in there]
            if wanted:
                pause = await self._wait(pause, deadline)

    async def _wait(self, pause: float, deadline: float) -> float:
        if self._clock.monotonic() > deadline:
            raise StateError(
                "another process has been fetching the same texts for over "
                f"{self.terms.patience_seconds:.0f} s; end it, or run again later"
            )
        await self._clock.sleep(pause)
        return min(pause * 2, POLL_SECONDS[1])

    async def _stored(self, items: Sequence[Item]) -> Landing:
        digests = [item.digest for item in items]
        found = await self.lookup(digests)
        there = np.flatnonzero(found.found)
        return Landing([digests[i] for i in there], found.vectors[there], bought=False)

    async def _fly(
        self, items: Sequence[Item], priority: Priority
    ) -> tuple[Landing | None, list[Item]]:
        """Claim what is free and buy it; also returns what is stored or fetched elsewhere."""
        async with self._lanes.slot(priority):
            flying, elsewhere = await self._begin(items)
            if flying is None:
                return None, elsewhere
            try:
                await self._deliver(flying, list(flying.left.values()))
            except BaseException as exc:
                await asyncio.shield(self._abandon(flying, exc))
                raise
            return flying.landing(), elsewhere

    async def _begin(self, items: Sequence[Item]) -> tuple[_Flying | None, list[Item]]:
        now = self._now_ms()

        def work(connection: Connection) -> tuple[_Flying | None, list[Item]]:
            free, elsewhere = self._free(connection, items, now)
            if not free:
                return None, elsewhere
            flight = self._flight(free)
            flights.open_flight(connection, flight, now)
            claims.claim(connection, flight.space_id, [i.digest for i in free], flight.id)
            left = {item.digest: item for item in free}
            return _Flying(flight, left, self.terms.space.native_dimensions), elsewhere

        return await self._store.write(work)

    def _free(
        self, connection: Connection, items: Sequence[Item], now: int
    ) -> tuple[list[Item], list[Item]]:
        number = self.terms.space_id
        digests = [item.digest for item in items]
        taken = claims.held(connection, number, digests)
        if taken and flights.expire(connection, owners.dead(connection, now), now):
            claims.release_orphans(connection)
            taken = claims.held(connection, number, digests)
        taken |= database.existing(connection, number, digests)
        free = [item for item in items if item.digest not in taken]
        return free, [item for item in items if item.digest in taken]

    def _flight(self, items: Sequence[Item]) -> Flight:
        terms = self.terms
        shares = shares_of([item.account for item in items], [item.tokens for item in items])
        return Flight(
            flights.new_id(),
            terms.owner_id,
            terms.space_id,
            terms.run_id,
            terms.provider,
            terms.kind,
            terms.price,
            shares,
        )

    async def _deliver(self, flying: _Flying, items: list[Item]) -> bool:
        """Send ``items`` as one request; split it where it is refused. True: all are in."""
        try:
            result = await self._embedder.embed([item.text for item in items])
        except (InputRefused, RequestTooLarge, InvalidReply) as exc:
            await self._book_failure(flying, exc, items)
            return await self._isolate(flying, items, exc)
        await self._settle(flying, items, result)
        return True

    async def _isolate(
        self, flying: _Flying, items: list[Item], exc: InputRefused | RequestTooLarge | InvalidReply
    ) -> bool:
        """Find the text that is to blame; the others are delivered. Always False."""
        named = exc.fault.input_index if isinstance(exc, InputRefused) else None
        if named is not None and 0 <= named < len(items):
            await self._refuse(flying, items[named], exc)
            rest = items[:named] + items[named + 1 :]
            if rest:
                await self._deliver(flying, rest)
        elif len(items) == 1:
            await self._refuse(flying, items[0], exc)
        else:
            await self._halve(flying, items, exc)
        return False

    async def _halve(
        self, flying: _Flying, items: list[Item], exc: InputRefused | RequestTooLarge | InvalidReply
    ) -> None:
        middle = (len(items) + 1) // 2
        left, right = items[:middle], items[middle:]
        clean = await self._deliver(flying, left)
        if clean and len(right) > 1 and isinstance(exc, InputRefused):
            await self._halve(flying, right, exc)  # the left was fine, so it must be here
        else:
            await self._deliver(flying, right)

    async def _refuse(self, flying: _Flying, item: Item, exc: EmbeddingPipelineError) -> None:
        reason = REFUSED
        if isinstance(exc, RequestTooLarge):
            reason = TOO_LONG
        elif isinstance(exc, InvalidReply):
            reason = BAD_REPLY
        fault = getattr(exc, "fault", None)
        code = str(fault.code or fault.status or "") if fault else ""
        number, remaining = self.terms.space_id, _without(flying.left, [item.digest])

        def work(connection: Connection) -> None:
            claims.release(connection, number, [item.digest])
            _end_part(connection, flying.flight.id, remaining)

        await self._store.write(work)
        flying.refused[item.digest] = Refusal(reason, code)
        flying.left = remaining

    async def _settle(self, flying: _Flying, items: list[Item], result: EmbeddingResult) -> None:
        """Vectors, bill and claims in one transaction; then, and only then, it is delivered."""
        shares = shares_of([item.account for item in items], [item.tokens for item in items])
        digests = [item.digest for item in items]
        remaining = _without(flying.left, digests)
        now, terms = self._now_ms(), self.terms
        wait = sum(attempt.waited_seconds for attempt in result.attempts)

        def work(connection: Connection) -> None:
            self._book_unknown(connection, flying, result.attempts, items, now)
            numbers = flights.settle(
                connection,
                flying.flight,
                shares,
                tokens=result.usage.input_tokens,
                requests=result.requests - _maybe_billed(result.attempts),
                wait_ms=int(wait * 1000),
                provider=result.provider,
                now_ms=now,
            )
            paid = [numbers[item.account] for item in items]
            database.put_many(
                connection, terms.space_id, terms.space, digests, result.vectors, paid, terms.dtype
            )
            claims.release(connection, terms.space_id, digests)
            _end_part(connection, flying.flight.id, remaining)

        await self._store.write(work)
        flying.left = remaining
        flying.digests.extend(digests)
        flying.vectors.append(result.vectors)
        for account, tokens in divide(result.usage.input_tokens, shares).items():
            flying.billed[account] = flying.billed.get(account, 0) + tokens
        flying.requests += result.requests
        flying.attempts.extend(result.attempts)

    async def _book_failure(
        self, flying: _Flying, exc: EmbeddingPipelineError, items: Sequence[Item]
    ) -> None:
        attempts: Sequence[Attempt] = getattr(exc, "attempts", ())
        flying.attempts.extend(attempts)
        flying.requests += max(len(attempts), 1)
        if _maybe_billed(attempts):
            now = self._now_ms()
            await self._store.write(lambda c: self._book_unknown(c, flying, attempts, items, now))

    def _book_unknown(
        self,
        connection: Connection,
        flying: _Flying,
        attempts: Sequence[Attempt],
        items: Sequence[Item],
        now: int,
    ) -> None:
        lost = _maybe_billed(attempts)
        if not lost:
            return
        shares = shares_of([item.account for item in items], [item.tokens for item in items])
        flights.settle(
            connection,
            flying.flight,
            shares,
            tokens=lost * sum(share.tokens for share in shares),
            requests=lost,
            wait_ms=0,
            provider=flying.flight.provider,
            now_ms=now,
            outcome=flights.UNKNOWN,
        )

    async def _abandon(self, flying: _Flying, exc: BaseException) -> None:
        """Book what may have been billed and give the claims back; keep what has landed."""
        left = list(flying.left.values())
        attempts: Sequence[Attempt] = getattr(exc, "attempts", ())
        if not isinstance(exc, ProviderError):  # cut off, or delivered and not stored
            attempts = [Attempt(flying.flight.provider, type(exc).__name__, maybe_billed=True)]
        now, number = self._now_ms(), self.terms.space_id

        def work(connection: Connection) -> None:
            self._book_unknown(connection, flying, attempts, left, now)
            claims.release(connection, number, [item.digest for item in left])
            flights.close_flight(connection, flying.flight.id)

        try:
            await self._store.write(work)
        except StateError:  # the store is what failed: the lease cleans up after us
            log.warning("claims of a failed request stay until the lease runs out")

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _without(left: Mapping[Digest, Item], digests: Sequence[Digest]) -> dict[Digest, Item]:
    gone = set(digests)
    return {digest: item for digest, item in left.items() if digest not in gone}


def _end_part(connection: Connection, flight_id: str, left: Mapping[Digest, Item]) -> None:
    """Narrow the flight to what is still out, or end it."""
    if not left:
        flights.close_flight(connection, flight_id)
        return
    items = left.values()
    shares = shares_of([item.account for item in items], [item.tokens for item in items])
    flights.update_shares(connection, flight_id, shares)


def _maybe_billed(attempts: Sequence[Attempt]) -> int:
    return sum(attempt.maybe_billed for attempt in attempts)


def sweep(connection: Connection, now_ms: int) -> int:
    """Book and release what dead services left behind; returns how many flights."""
    gone = owners.dead(connection, now_ms)
    booked = flights.expire(connection, gone, now_ms)
    claims.release_orphans(connection)
    for owner_id in gone:
        owners.remove(connection, owner_id)
    return booked
