"""Calls that belong to no flight, in the books all the same: nothing is sent for nothing.

Belongs here: money, the ledger and the sign of life around one small call. Does not belong
here: what is called or why (``vouching``).

Killed in between, the next process books the call as unknown, like any flight. A budget
that has no room for it forbids it.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from embedding_pipeline.cache.database import space_id
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.errors import BudgetExceeded, ProviderError
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.affording import Ask, afford
from embedding_pipeline.ledger.budgets import Budgets, reserve
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.ledger.shares import Share
from embedding_pipeline.records import Account, EmbeddingResult, Kind, Space
from embedding_pipeline.state import owners
from embedding_pipeline.state.store import Store
from embedding_pipeline.tokens import api_estimate

PROJECT: Final = "provider_check"
"""Who pays for looking at providers: some sixty tokens each time."""


@dataclass(frozen=True)
class Booking:
    """Makes calls that are booked.

    Attributes:
        store: opens the shared store, or gives the one that is open.
        price: nano-USD a token; None where none is known.
        budgets: what bounds spending, if anything does.
        clock: time.
    """

    store: Callable[[], Store]
    price: int | None
    budgets: Budgets | None
    clock: Clock

    async def call(
        self, embedder: Embedder, provider: str, texts: Sequence[str]
    ) -> EmbeddingResult:
        """One call of ``embedder``.

        Raises:
            BudgetExceeded: there is no room for it; nothing was sent.
            ProviderError: as the embedder does.
            StateError: the store cannot be used.
        """
        store = await asyncio.to_thread(self.store)
        call = _Call(self, provider, embedder.space, 2 * int(api_estimate(texts).sum()))
        await store.write(call.begin)
        try:
            result = await embedder.embed(texts)
            call.settled(result.usage.input_tokens)
            return result
        except ProviderError as error:
            if not error.fault.maybe_billed:
                call.settled(0)
            raise
        finally:
            await store.write(call.end)


class _Call:
    """What the books say of one call; unknown until it is settled."""

    def __init__(self, booking: Booking, provider: str, space: Space, most: int) -> None:
        self._booking = booking
        self._space = space
        self._began = int(booking.clock.now() * 1000)
        self._owner = owners.this_process()
        self._shares = (Share(Account(PROJECT), most),)
        self._flight = Flight(
            flights.new_id(),
            self._owner.id,
            0,
            "",
            provider,
            Kind.API,
            booking.price,
            self._shares,
        )
        self._tokens = most
        self._outcome = flights.UNKNOWN

    def settled(self, tokens: int) -> None:
        """It was billed so much."""
        self._tokens, self._outcome = tokens, flights.SETTLED

    def begin(self, connection: Connection) -> None:
        """Before it leaves: its money, and that it is out."""
        self._flight = replace(self._flight, space_id=space_id(connection, self._space))
        owners.register(connection, self._owner, self._began)
        flights.open_flight(connection, self._flight, self._began)
        budgets, cost = self._booking.budgets, self._tokens * (self._booking.price or 0)
        if budgets is None or not cost:
            return
        rooms = [one.room for one in budgets.keep(connection, self._began, self._began)]
        if not afford([Ask(PROJECT, "", cost)], rooms).fits:
            raise BudgetExceeded("no budget has room for the check of a provider")
        reserve(connection, self._flight.id, {(PROJECT, ""): cost})

    def end(self, connection: Connection) -> None:
        """Once it is over: the bill."""
        flight = self._flight
        if not flights.is_open(connection, flight.id):  # taken for dead, and booked as unknown
            flights.regain(connection, flight, flight.shares, self._began)
        flights.settle(
            connection,
            flight,
            self._shares,
            tokens=self._tokens,
            requests=1,
            wait_ms=0,
            provider=flight.provider,
            began_ms=self._began,
            outcome=self._outcome,
        )
        flights.close_flight(connection, flight.id)
        reserve(connection, flight.id, {})
        owners.remove(connection, self._owner.id)
