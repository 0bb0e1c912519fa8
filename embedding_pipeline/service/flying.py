"""One flight, from its claim to its settlement: what other processes can see of it.

Belongs here: what a flight holds, and each step of it as one transaction. Does not belong
here: sending, splitting and waiting (``fetching``), or any statement (``cache``, ``ledger``).

``begin`` claims the keys and writes down that a request leaves; ``settle`` stores the
vectors, books the bill and gives the claims back. Killed in between, the next process books
``unknown`` and tries again. A process that only seemed dead gets its flight back first.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from sqlalchemy import Connection

from embedding_pipeline.batch_api.records import OWNER
from embedding_pipeline.cache import claims, database
from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import ProviderError, StateError
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.deferred import BATCH_API
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.ledger.shares import Share, divide
from embedding_pipeline.records import Attempt, Digest, EmbeddingResult
from embedding_pipeline.service.attempts import (
    attempts_of,
    calls_of,
    ended_by,
    lost_among,
    not_stored,
    waited_ms,
)
from embedding_pipeline.service.flight import Flying, Terms, payers_of, shares_for, without
from embedding_pipeline.service.purse import Purse, no_money_left
from embedding_pipeline.service.retiring import sweep
from embedding_pipeline.service.surely import is_settled, write_surely
from embedding_pipeline.service.work import Deferral, Item, Refusal
from embedding_pipeline.state.store import Store

log = logging.getLogger(__name__)

IN_BATCH = Deferral(
    BATCH_API,
    "the text is in a batch of the Batch API, whose result is due within 24 hours; see: "
    "embedding-pipeline batch list",
)


class Books:
    """The transactions of a service's flights. Run each to its end (``finishing``)."""

    def __init__(
        self, store: Store, terms: Terms, clock: Clock, purse: Purse | None = None
    ) -> None:
        self._store = store
        self._purse = purse
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
        """Claim what is free for the flight; returns what is stored or fetched elsewhere.

        What a batch of the Batch API holds is not waited for: it is deferred.
        """
        now = self._now_ms()
        flying.deferred = await self._hopeless(items, now)
        items = [item for item in items if item.digest not in flying.deferred]
        if not items:
            return []
        owed, self._owed = self._owed, []

        def work(connection: Connection) -> tuple[list[Item], list[Item]]:
            for debt in owed:
                debt(connection)
            free, elsewhere = self._claim(connection, flying, items, now)
            if free:
                flight = replace(flying.flight, shares=shares_for(free))
                flights.open_flight(connection, flight, now)
            return free, elsewhere

        try:
            free, elsewhere = await self._store.write(work)
        except BaseException:
            self._owed = owed + self._owed
            raise
        flying.left = {item.digest: item for item in free}
        flying.began_ms = now
        return elsewhere

    def _claim(
        self, connection: Connection, flying: Flying, items: Sequence[Item], now: int
    ) -> tuple[list[Item], list[Item]]:
        """Claim what is free, and paid for; returns it, and what is stored or fetched elsewhere."""
        number, flight_id = self._terms.space_id, flying.flight.id
        there = database.existing(connection, number, [item.digest for item in items])
        free = [item for item in items if item.digest not in there]
        digests = [item.digest for item in free]
        if self._purse is None and claims.take(connection, number, digests, flight_id):
            return free, [item for item in items if item.digest in there] if there else []
        free, elsewhere = self._free(connection, flying, items, there, now)
        if self._purse is not None:
            free = self._afford(connection, flying, self._purse, free, now)
        claims.claim(connection, number, [item.digest for item in free], flight_id)
        return free, elsewhere

    def _afford(
        self, connection: Connection, flying: Flying, purse: Purse, free: list[Item], now: int
    ) -> list[Item]:
        """Those of the free keys that there is money for; it is reserved."""
        flight_id, owner = flying.flight.id, self._terms.owner_id
        admission = purse.admit(connection, flight_id, free, now)
        if admission.waiting and sweep(connection, now, asking=owner):
            admission = purse.admit(connection, flight_id, free, now)
        flying.waiting = admission.waiting
        flying.deferred.update(admission.refused)
        return list(admission.granted)

    async def _hopeless(self, items: Sequence[Item], now: int) -> dict[Digest, Deferral]:
        """What there is certainly no money for, found out without a writing transaction."""
        purse = self._purse
        if purse is None or not (hopeless := purse.hopeless(items, now)):
            return {}

        def work(connection: Connection) -> set[Digest]:
            holders = claims.holders(connection, self._terms.space_id, list(hopeless))
            return _in_batches(connection, holders)

        return hopeless | dict.fromkeys(await self._store.read(work), IN_BATCH)

    def _free(
        self,
        connection: Connection,
        flying: Flying,
        items: Sequence[Item],
        there: set[Digest],
        now: int,
    ) -> tuple[list[Item], list[Item]]:
        """What nobody has or fetches, and what somebody does, batches aside."""
        number, owner = self._terms.space_id, self._terms.owner_id
        digests = [item.digest for item in items]
        holders = claims.holders(connection, number, digests)
        if holders and sweep(connection, now, asking=owner):
            holders = claims.holders(connection, number, digests)
        waiting = _in_batches(connection, holders) - there
        flying.deferred.update(dict.fromkeys(waiting, IN_BATCH))
        taken = (there | holders.keys()) - waiting
        free = [item for item in items if item.digest not in taken and item.digest not in waiting]
        return free, [item for item in items if item.digest in taken]

    async def settle(self, flying: Flying, items: Sequence[Item], result: EmbeddingResult) -> None:
        """Vectors, bill and claims in one transaction; then, and only then, it is delivered."""
        shares, began, terms = shares_for(items), flying.began_ms, self._terms
        now = self._now_ms()
        digests = [item.digest for item in items]
        left = without(flying.left, digests)
        lost = lost_among(result.attempts)
        flying.known = [*result.attempts, not_stored(result)]

        def work(connection: Connection) -> None:
            self._regain(connection, flying)
            _book_lost(connection, flying.flight, shares, lost[flying.booked :], began)
            numbers = flights.settle(
                connection,
                flying.flight,
                shares,
                tokens=result.usage.input_tokens,
                requests=result.requests - len(lost) + flying.unbooked,
                wait_ms=waited_ms(result.attempts) + flying.unbooked_ms,
                provider=result.provider,
                began_ms=began,
            )
            paid = payers_of(items, numbers)
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
            self._narrow(connection, flying.flight, left)

        if self._purse is not None:
            self._purse.compare(items, result.usage.input_tokens, result.provider)
        kept = partial(is_settled, flight=flying.flight.id, space=terms.space_id, digests=digests)
        await write_surely(self._store, work, kept)
        flying.left, flying.out, flying.unbooked, flying.unbooked_ms = left, (), 0, 0
        flying.lost += len(lost[flying.booked :])
        flying.known = None
        flying.digests.extend(digests)
        flying.vectors.append(result.vectors)
        for account, tokens in divide(result.usage.input_tokens, shares).items():
            flying.billed[account] = flying.billed.get(account, 0) + tokens
        flying.requests += result.requests
        flying.attempts.extend(result.attempts)

    async def lose(self, flying: Flying, items: Sequence[Item], attempt: Attempt) -> None:
        """Book a call that may have been billed, before it is made again.

        Raises:
            BudgetExceeded: there is no money to make it again.
        """
        paid = await self._book(flying, items, [attempt], list(flying.left.values()))
        flying.booked += 1
        if not paid:
            raise no_money_left()

    async def fail(self, flying: Flying, items: Sequence[Item], exc: ProviderError) -> None:
        """Take note of a request that was refused; what may have been billed is ``unknown``.

        Raises:
            BudgetExceeded: there is no money to send what is left of it.
        """
        flying.known = attempts = attempts_of(exc)
        every = lost_among(attempts)
        lost, paid = every[flying.booked :], True
        if lost:
            alone = [items[0].digest] if len(items) == 1 else []  # not sent again
            rest = without(flying.left, alone).values()
            paid = await self._book(flying, items, lost, list(rest))
        made = calls_of(attempts)
        flying.out, flying.known, flying.booked = (), None, 0
        flying.unbooked += made - len(every)
        flying.unbooked_ms += waited_ms(attempts)
        flying.requests += made
        flying.attempts.extend(attempts)
        if not paid:
            raise no_money_left()

    async def _book(
        self,
        flying: Flying,
        items: Sequence[Item],
        lost: Sequence[Attempt],
        rest: Sequence[Item],
    ) -> bool:
        """Book lost calls as unknown; whether the rest can still be paid for."""
        now, purse = self._now_ms(), self._purse

        def work(connection: Connection) -> bool:
            self._regain(connection, flying)
            _book_lost(connection, flying.flight, shares_for(items), lost, flying.began_ms)
            if purse is None:
                return True
            if purse.renew(connection, flying.flight.id, rest, flying.began_ms, now):
                return True
            # Nothing of it leaves again: whoever finds this process dead has nothing to book.
            flights.update_shares(connection, flying.flight.id, ())
            return False

        paid = await self._store.write(work)
        flying.lost += len(lost)
        return paid

    async def refuse(self, flying: Flying, item: Item, refusal: Refusal) -> None:
        """One text is to blame: its claim ends, and the flight goes on without it."""
        left = without(flying.left, [item.digest])

        def work(connection: Connection) -> None:
            self._regain(connection, flying)
            if not left:
                _book_calls(connection, flying, [item])
            claims.release(connection, self._terms.space_id, [item.digest], flying.flight.id)
            self._narrow(connection, flying.flight, left)

        await self._store.write(work)
        flying.left = left
        flying.refused[item.digest] = refusal

    async def abandon(self, flying: Flying, exc: BaseException) -> None:
        """Book what may have been billed and give the claims back; keep what has landed."""
        left, out = list(flying.left.values()), flying.out
        if not left:
            return
        attempts = flying.known
        if attempts is None:
            attempts = ended_by(exc, flying.flight) if out else ()
        every = lost_among(attempts)
        lost = every[flying.booked :]
        flying.attempts.extend(attempts)
        flying.requests += calls_of(attempts)
        flying.unbooked += calls_of(attempts) - len(every)
        flying.unbooked_ms += waited_ms(attempts)

        def work(connection: Connection) -> None:
            if not self._regain(connection, flying):
                return
            flight, began = flying.flight, flying.began_ms
            kept = flights.calls_lost(connection, flight.id, began) - flying.lost
            _book_lost(connection, flight, shares_for(out or left), lost[max(kept, 0) :], began)
            _book_calls(connection, flying, left)
            digests = [item.digest for item in left]
            claims.release(connection, self._terms.space_id, digests, flying.flight.id)
            self._narrow(connection, flying.flight, {})

        try:
            await self._store.write(work)
        except StateError as problem:  # done with the next flight, or by whoever finds us dead
            self._owed.append(work)
            log.warning("a failed request could not be booked yet: %s", problem)

    def _narrow(self, connection: Connection, flight: Flight, left: dict[Digest, Item]) -> None:
        """Narrow the flight, and its money, to what is still out; or end it."""
        if left:
            flights.update_shares(connection, flight.id, shares_for(left.values()))
        else:
            flights.close_flight(connection, flight.id)
        if self._purse is not None:
            self._purse.hold(connection, flight.id, left.values())

    def _regain(self, connection: Connection, flying: Flying) -> bool:
        """Whoever took this flight for dead was wrong: put it back before it is changed.

        False where nobody did: then a step of our own ended it whose commit was taken for
        failed, as when the connection to a database breaks on the word that it was kept.
        """
        flight, began = flying.flight, flying.began_ms
        if flights.is_open(connection, flight.id):
            return True
        if flights.calls_lost(connection, flight.id, began) <= flying.lost:
            return False
        flights.regain(connection, flight, shares_for(flying.left.values()), began)
        if self._purse is not None:
            self._purse.hold(connection, flight.id, flying.left.values())
        log.warning("a request was taken for dead; its entry is put right")
        number, digests = self._terms.space_id, list(flying.left)
        taken = claims.held(connection, number, digests)
        free = [digest for digest in digests if digest not in taken]
        claims.claim(connection, number, free, flight.id)
        return True

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _in_batches(connection: Connection, holders: Mapping[Digest, str]) -> set[Digest]:
    """Those of the claimed keys that are in a batch of the Batch API."""
    if not holders:
        return set()
    batches = flights.owned_by(connection, OWNER, set(holders.values()))
    return {digest for digest, flight in holders.items() if flight in batches}


def _book_lost(
    connection: Connection,
    flight: Flight,
    shares: Sequence[Share],
    lost: Iterable[Attempt],
    began: int,
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
            began_ms=began,
            outcome=flights.UNKNOWN,
        )


def _book_calls(connection: Connection, flying: Flying, items: Sequence[Item]) -> None:
    """Calls that cost nothing and brought nothing are calls all the same."""
    if flying.unbooked:
        flights.settle(
            connection,
            flying.flight,
            shares_for(items)[:1],
            tokens=0,
            requests=flying.unbooked,
            wait_ms=flying.unbooked_ms,
            provider=flying.flight.provider,
            began_ms=flying.began_ms,
        )
