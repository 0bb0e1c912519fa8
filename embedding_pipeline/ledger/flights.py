"""Requests that are out, and the entry each becomes in the ledger.

Belongs here: statements on ``flights`` and ``ledger``, to be run inside the caller's
transaction. Does not belong here: vectors and claims, or deciding to send anything.

A flight is written before its request leaves. It ends as ``settled`` entries (with the
provider's own count), as ``unknown`` entries (it may have been billed, nobody knows:
booked at our count, so that money in flight at a crash is never dropped), or released.
"""

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from embedding_pipeline.ledger.shares import Share, divide
from embedding_pipeline.records import Account, Kind
from embedding_pipeline.state.schema import flights, ledger
from embedding_pipeline.state.statements import (
    delete_row,
    has_row,
    insert_many,
    insert_numbered,
)

SETTLED = "settled"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Flight:
    """One request that is out.

    Attributes:
        id: unique name.
        owner_id: the service that sent it.
        space_id: number of the space in the store.
        run_id: the run it belongs to, or "".
        provider: who was asked first.
        kind: ``api``, ``batch_api`` or ``local``.
        price: nano-USD a token, None where no price is known.
        shares: for whom, with tokens by our own count.
    """

    id: str
    owner_id: str
    space_id: int
    run_id: str
    provider: str
    kind: Kind
    price: int | None
    shares: tuple[Share, ...]


def new_id() -> str:
    """A name no other flight has."""
    return uuid.uuid4().hex


def open_flight(connection: Connection, flight: Flight, now_ms: int) -> None:
    """Record that a request is about to leave."""
    row = (
        flight.id,
        flight.owner_id,
        flight.space_id,
        flight.run_id,
        flight.provider,
        flight.kind.value,
        flight.price,
        now_ms,
        _dump(flight.shares),
    )
    insert_many(connection, flights, [row])


def update_shares(connection: Connection, flight_id: str, shares: Sequence[Share]) -> None:
    """Narrow a flight to what is still out, after a part of it was settled."""
    connection.execute(
        update(flights).where(flights.c.id == flight_id).values(shares=_dump(shares))
    )


def close_flight(connection: Connection, flight_id: str) -> None:
    """Forget a flight: it is settled, or nothing was sent."""
    delete_row(connection, flights, flight_id)


def is_open(connection: Connection, flight_id: str) -> bool:
    """Whether a flight is on the books: not closed, and nobody took its owner for dead."""
    return has_row(connection, flights, flight_id)


def owned_by(connection: Connection, owner_id: str, flight_ids: Collection[str]) -> set[str]:
    """Those of some flights that belong to an owner."""
    c = flights.c
    query = select(c.id).where(c.id.in_(flight_ids), c.owner_id == owner_id)
    return set(connection.execute(query).scalars())


def find(connection: Connection, flight_id: str) -> Flight | None:
    """A flight that is on the books, with what is still out of it."""
    row = connection.execute(select(flights).where(flights.c.id == flight_id)).first()
    return None if row is None else _load(row)


def regain(connection: Connection, flight: Flight, shares: Sequence[Share], began_ms: int) -> None:
    """Put a flight back on the books that was taken for dead.

    A process that stood still for longer than its lease comes back to find its request
    booked as ``unknown``. That entry is taken back by its opposite (entries are never
    changed), and the request is then booked as what it really was.

    Args:
        connection: the transaction that is about to settle (a part of) the flight.
        flight: the flight; it ``is_open`` no more.
        shares: what was still out, as ``update_shares`` last wrote it.
        began_ms: when the flight left.
    """
    left = replace(flight, shares=tuple(shares))
    _book_unknown(connection, left, -1, began_ms)
    open_flight(connection, left, began_ms)


def calls_lost(connection: Connection, flight_id: str, began_ms: int) -> int:
    """How many calls of a flight are booked as unknown, whoever booked them."""
    c = ledger.c
    query = select(func.coalesce(func.sum(c.requests), 0)).where(
        c.at == began_ms, c.flight_id == flight_id, c.outcome == UNKNOWN
    )
    return int(connection.scalar(query) or 0)


def settle(
    connection: Connection,
    flight: Flight,
    shares: Sequence[Share],
    *,
    tokens: int,
    requests: int,
    wait_ms: int,
    provider: str,
    began_ms: int,
    outcome: str = SETTLED,
) -> dict[Account, int]:
    """Book what a request was billed, one entry an account.

    Args:
        connection: the transaction that also stores the vectors.
        flight: the flight the request belongs to.
        shares: for whom this request was (a part of the flight's, when it was split).
        tokens: billed tokens; divided in proportion to the shares.
        requests: calls made, failed ones included; booked on the first entry.
        wait_ms: time waited between attempts; booked on the first entry.
        provider: who delivered.
        began_ms: when the request left: the instant of the entries, by which days, months
            and budgets count it.
        outcome: ``settled`` or ``unknown``.

    Returns:
        The number of the ledger entry of each account.
    """
    parts = divide(tokens, shares)
    numbers: dict[Account, int] = {}
    for account, part in parts.items():
        first = not numbers
        row = (
            began_ms,
            flight.run_id,
            account.partition,
            account.project,
            account.user,
            flight.space_id,
            provider,
            flight.kind.value,
            requests if first else 0,
            part,
            part * (flight.price or 0),
            flight.price,
            wait_ms if first else 0,
            outcome,
            flight.id,
        )
        numbers[account] = insert_numbered(connection, ledger, row)
    return numbers


def expire(connection: Connection, owner_ids: Sequence[str]) -> int:
    """Book what dead owners had in flight as ``unknown``; returns how many flights.

    The entries are of the instant the requests left, like all others.
    """
    if not owner_ids:
        return 0
    left = connection.execute(select(flights).where(flights.c.owner_id.in_(owner_ids))).all()
    for row in left:
        flight = _load(row)
        _book_unknown(connection, flight, 1, int(row.started_at))
        close_flight(connection, flight.id)
    return len(left)


def _book_unknown(connection: Connection, flight: Flight, times: int, began_ms: int) -> None:
    settle(
        connection,
        flight,
        flight.shares,
        tokens=times * sum(share.tokens for share in flight.shares),
        requests=times,
        wait_ms=0,
        provider=flight.provider,
        began_ms=began_ms,
        outcome=UNKNOWN,
    )


def _dump(shares: Sequence[Share]) -> str:
    return json.dumps(
        [[s.account.partition, s.account.project, s.account.user, s.tokens] for s in shares]
    )


def _load(row: Row[Any]) -> Flight:
    shares = tuple(
        Share(Account(project, user, partition), tokens)
        for partition, project, user, tokens in json.loads(row.shares)
    )
    return Flight(
        row.id,
        row.owner_id,
        row.space_id,
        row.run_id,
        row.provider,
        Kind(row.kind),
        row.price_nano_usd,
        shares,
    )
