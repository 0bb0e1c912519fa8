"""One flight, from its claim to its settlement: what other processes can see of it.

Belongs here: what a flight holds, and each step of it as one transaction. Does not belong
here: sending, splitting and waiting (``fetching``), or any statement (``cache``, ``ledger``).

``begin`` claims the keys and writes down that a request leaves; ``settle`` stores the
vectors, books the bill and gives the claims back. Killed in between, the next process books
``unknown`` and tries again. A process that only seemed dead gets its flight back first.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sqlalchemy import Connection

from embedding_pipeline.cache import claims, database
from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import ProviderError, StateError
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.ledger.shares import Share, divide, shares_of
from embedding_pipeline.records import (
    Account,
    Attempt,
    Digest,
    EmbeddingResult,
    Kind,
    Space,
    Vectors,
)
from embedding_pipeline.service.attempts import attempts_of, calls_of, ended_by, waited_ms
from embedding_pipeline.service.work import Item, Landing, Refusal
from embedding_pipeline.state import owners
from embedding_pipeline.state.store import Store

log = logging.getLogger(__name__)


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
class Flying:
    """A flight under way.

    Attributes:
        flight: as it was opened.
        width: native dimensions.
        left: keys claimed and not settled yet.
        out: those of them that a request is out for at this moment.
        unbooked: calls already made that no entry holds yet.
        unbooked_ms: time waited between them, and for permits.
        limited_seconds: time waited for permits.
    """

    flight: Flight
    width: int
    left: dict[Digest, Item] = field(default_factory=dict)
    out: Sequence[Item] = ()
    unbooked: int = 0
    unbooked_ms: int = 0
    limited_seconds: float = 0.0
    digests: list[Digest] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)
    refused: dict[Digest, Refusal] = field(default_factory=dict)
    billed: dict[Account, int] = field(default_factory=dict)
    requests: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    def landing(self) -> Landing:
        """What has come in."""
        whole = self.vectors[0] if len(self.vectors) == 1 else self._joined()
        return Landing(
            self.digests,
            whole,
            True,
            self.refused,
            self.billed,
            self.requests,
            self.attempts,
            self.limited_seconds,
        )

    def _joined(self) -> Vectors:
        return np.concatenate([np.zeros((0, self.width), np.float32), *self.vectors])


class Books:
    """The transactions of a service's flights. Run each to its end (``finishing``)."""

    def __init__(self, store: Store, terms: Terms, clock: Clock) -> None:
        self._store = store
        self._terms = terms
        self._clock = clock
        self._owed: list[Callable[[Connection], None]] = []

    def new(self) -> Flying:
        """A flight that has claimed nothing yet."""
        terms = self._terms
        flight = Flight(
            flights.new_id(),
            terms.owner_id,
            terms.space_id,
            terms.run_id,
            terms.provider,
            terms.kind,
            terms.price,
            (),
        )
        return Flying(flight, terms.space.native_dimensions)

    async def begin(self, flying: Flying, items: Sequence[Item]) -> list[Item]:
        """Claim what is free for the flight; returns what is stored or fetched elsewhere."""
        now = self._now_ms()
        owed, self._owed = self._owed, []

        def work(connection: Connection) -> tuple[list[Item], list[Item]]:
            for debt in owed:
                debt(connection)
            free, elsewhere = self._free(connection, items, now)
            if free:
                flight = replace(flying.flight, shares=_shares(free))
                flights.open_flight(connection, flight, now)
                digests = [item.digest for item in free]
                claims.claim(connection, flight.space_id, digests, flight.id)
            return free, elsewhere

        try:
            free, elsewhere = await self._store.write(work)
        except BaseException:
            self._owed = owed + self._owed
            raise
        flying.left = {item.digest: item for item in free}
        return elsewhere

    def _free(
        self, connection: Connection, items: Sequence[Item], now: int
    ) -> tuple[list[Item], list[Item]]:
        number, owner = self._terms.space_id, self._terms.owner_id
        digests = [item.digest for item in items]
        taken = claims.held(connection, number, digests)
        if taken and sweep(connection, now, asking=owner):
            taken = claims.held(connection, number, digests)
        taken |= database.existing(connection, number, digests)
        free = [item for item in items if item.digest not in taken]
        return free, [item for item in items if item.digest in taken]

    async def settle(self, flying: Flying, items: Sequence[Item], result: EmbeddingResult) -> None:
        """Vectors, bill and claims in one transaction; then, and only then, it is delivered."""
        shares, now, terms = _shares(items), self._now_ms(), self._terms
        digests = [item.digest for item in items]
        left = _without(flying.left, digests)
        lost = [attempt for attempt in result.attempts if attempt.maybe_billed]

        def work(connection: Connection) -> None:
            self._regain(connection, flying, now)
            _book_lost(connection, flying.flight, shares, lost, now)
            numbers = flights.settle(
                connection,
                flying.flight,
                shares,
                tokens=result.usage.input_tokens,
                requests=result.requests - len(lost) + flying.unbooked,
                wait_ms=waited_ms(result.attempts) + flying.unbooked_ms,
                provider=result.provider,
                now_ms=now,
            )
            paid = [numbers[item.account] for item in items]
            database.put_many(
                connection,
                terms.space_id,
                terms.space,
                digests,
                result.vectors,
                paid,
                dtype=terms.dtype,
                now_ms=now,
            )
            claims.release(connection, terms.space_id, digests, flying.flight.id)
            _narrow(connection, flying.flight, left)

        await self._store.write(work)
        flying.left, flying.out, flying.unbooked, flying.unbooked_ms = left, (), 0, 0
        flying.digests.extend(digests)
        flying.vectors.append(result.vectors)
        for account, tokens in divide(result.usage.input_tokens, shares).items():
            flying.billed[account] = flying.billed.get(account, 0) + tokens
        flying.requests += result.requests
        flying.attempts.extend(result.attempts)

    async def fail(self, flying: Flying, items: Sequence[Item], exc: ProviderError) -> None:
        """Take note of a request that was refused; what may have been billed is ``unknown``."""
        attempts, now = attempts_of(exc), self._now_ms()
        lost = [attempt for attempt in attempts if attempt.maybe_billed]

        def work(connection: Connection) -> None:
            self._regain(connection, flying, now)
            _book_lost(connection, flying.flight, _shares(items), lost, now)

        if lost:
            await self._store.write(work)
        made = calls_of(attempts)
        flying.out = ()
        flying.unbooked += made - len(lost)
        flying.unbooked_ms += waited_ms(attempts)
        flying.requests += made
        flying.attempts.extend(attempts)

    async def refuse(self, flying: Flying, item: Item, refusal: Refusal) -> None:
        """One text is to blame: its claim ends, and the flight goes on without it."""
        left, now = _without(flying.left, [item.digest]), self._now_ms()

        def work(connection: Connection) -> None:
            self._regain(connection, flying, now)
            if not left:
                _book_calls(connection, flying, [item], now)
            claims.release(connection, self._terms.space_id, [item.digest], flying.flight.id)
            _narrow(connection, flying.flight, left)

        await self._store.write(work)
        flying.left = left
        flying.refused[item.digest] = refusal

    async def abandon(self, flying: Flying, exc: BaseException) -> None:
        """Book what may have been billed and give the claims back; keep what has landed."""
        left, out, now = list(flying.left.values()), flying.out, self._now_ms()
        if not left:
            return
        attempts = ended_by(exc, flying.flight) if out else ()
        lost = [attempt for attempt in attempts if attempt.maybe_billed]
        flying.attempts.extend(attempts)
        flying.requests += calls_of(attempts)
        flying.unbooked += calls_of(attempts) - len(lost)
        flying.unbooked_ms += waited_ms(attempts)

        def work(connection: Connection) -> None:
            self._regain(connection, flying, now)
            _book_lost(connection, flying.flight, _shares(out or left), lost, now)
            _book_calls(connection, flying, left, now)
            digests = [item.digest for item in left]
            claims.release(connection, self._terms.space_id, digests, flying.flight.id)
            flights.close_flight(connection, flying.flight.id)

        try:
            await self._store.write(work)
        except StateError as problem:  # done with the next flight, or by whoever finds us dead
            self._owed.append(work)
            log.warning("a failed request could not be booked yet: %s", problem)

    def _regain(self, connection: Connection, flying: Flying, now: int) -> None:
        """Whoever took this flight for dead was wrong: put it back before it is changed."""
        if flights.is_open(connection, flying.flight.id):
            return
        flights.regain(connection, flying.flight, _shares(flying.left.values()), now)
        log.warning("a request was taken for dead; its entry is put right")
        number, digests = self._terms.space_id, list(flying.left)
        taken = claims.held(connection, number, digests)
        free = [digest for digest in digests if digest not in taken]
        claims.claim(connection, number, free, flying.flight.id)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def sweep(connection: Connection, now_ms: int, *, asking: str = "") -> int:
    """Book and release what dead services left behind; returns how many flights.

    ``asking`` is the owner who does it, and so is not dead.
    """
    return retire(connection, owners.dead(connection, now_ms, asking=asking), now_ms)


def retire(connection: Connection, owner_ids: Sequence[str], now_ms: int) -> int:
    """End leases: what is still out is booked as unknown; returns how many flights."""
    if not owner_ids:
        return 0
    booked = flights.expire(connection, owner_ids, now_ms)
    if booked:
        log.warning("%d requests of ended processes booked as unknown", booked)
    claims.release_orphans(connection)
    for owner_id in owner_ids:
        owners.remove(connection, owner_id)
    return booked


def _book_lost(
    connection: Connection,
    flight: Flight,
    shares: Sequence[Share],
    lost: Iterable[Attempt],
    now: int,
) -> None:
    for attempt in lost:
        flights.settle(
            connection,
            flight,
            shares,
            tokens=sum(share.tokens for share in shares),
            requests=1,
            wait_ms=0,
            provider=attempt.provider,
            now_ms=now,
            outcome=flights.UNKNOWN,
        )


def _book_calls(connection: Connection, flying: Flying, items: Sequence[Item], now: int) -> None:
    """Calls that cost nothing and brought nothing are calls all the same."""
    if flying.unbooked:
        flights.settle(
            connection,
            flying.flight,
            _shares(items)[:1],
            tokens=0,
            requests=flying.unbooked,
            wait_ms=flying.unbooked_ms,
            provider=flying.flight.provider,
            now_ms=now,
        )


def _narrow(connection: Connection, flight: Flight, left: dict[Digest, Item]) -> None:
    """Narrow the flight to what is still out, or end it."""
    if left:
        flights.update_shares(connection, flight.id, _shares(left.values()))
    else:
        flights.close_flight(connection, flight.id)


def _shares(items: Iterable[Item]) -> tuple[Share, ...]:
    listed = list(items)
    return shares_of([item.account for item in listed], [item.tokens for item in listed])


def _without(left: dict[Digest, Item], digests: Sequence[Digest]) -> dict[Digest, Item]:
    gone = set(digests)
    return {digest: item for digest, item in left.items() if digest not in gone}
