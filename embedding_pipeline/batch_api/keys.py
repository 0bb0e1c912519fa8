"""The keys of a submission: claimed, reserved for, settled, given back.

Belongs here: what one transaction changes of keys, vectors and money together. Does not
belong here: how far a submission is (``books``), or calls.

A submission is a flight of the ledger that nobody takes for dead: its keys are claimed and
its money is reserved until the provider has delivered, whatever becomes of the process that
sent it. A key that was settled or given back is never booked again, so that results may be
read as often as need be.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Row, delete, select

from embedding_pipeline.batch_api import books
from embedding_pipeline.batch_api.files import Wanted
from embedding_pipeline.batch_api.records import OWNER, Submission, Terms
from embedding_pipeline.batch_api.results import Delivered
from embedding_pipeline.cache import claims, database
from embedding_pipeline.errors import StateError
from embedding_pipeline.ledger import budgets, flights
from embedding_pipeline.ledger.affording import Ask, afford
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.ledger.shares import Share, shares_of
from embedding_pipeline.records import Account, Digest, Kind
from embedding_pipeline.state.schema import submission_keys
from embedding_pipeline.state.statements import BATCH, insert_many

_C: Final = submission_keys.c


@dataclass(frozen=True)
class Granted:
    """What of some keys a submission got.

    Attributes:
        items: claimed for it now.
        elsewhere: keys that are stored, or that somebody fetches.
        unpaid: keys there is no money for.
    """

    items: Sequence[Wanted]
    elsewhere: int
    unpaid: int


def open_flight(connection: Connection, submission_id: str, terms: Terms, now_ms: int) -> None:
    """The submission's flight, with nothing in it yet."""
    flight = Flight(
        submission_id,
        OWNER,
        terms.space_id,
        "",
        terms.provider,
        Kind.BATCH_API,
        terms.price,
        (),
    )
    flights.open_flight(connection, flight, now_ms)


def forget_flight(connection: Connection, submission_id: str) -> None:
    """End a flight that got nothing."""
    flights.close_flight(connection, submission_id)


def claim(
    connection: Connection,
    submission_id: str,
    items: Sequence[Wanted],
    *,
    accounts: list[Account],
    terms: Terms,
    purse: Budgets | None,
    now_ms: int,
) -> Granted:
    """Claim for a submission what is free and can be paid for.

    Args:
        connection: a writing transaction.
        submission_id: the submission; its flight is open.
        items: keys, each once.
        accounts: who pays so far; new ones are added.
        terms: what all submissions have in common.
        purse: the budgets, where there are any.
        now_ms: the instant.
    """
    digests = [item.digest for item in items]
    taken = claims.held(connection, terms.space_id, digests)
    taken |= database.existing(connection, terms.space_id, digests)
    free = [item for item in items if item.digest not in taken]
    paid = _affordable(connection, free, terms, purse, now_ms)
    flight = _flight(connection, submission_id)
    claims.claim(connection, terms.space_id, [item.digest for item in paid], submission_id)
    insert_many(connection, submission_keys, _rows(submission_id, paid, accounts))
    more = shares_of([item.account for item in paid], [item.tokens for item in paid])
    flights.update_shares(connection, submission_id, _plus(flight.shares, more, 1))
    _hold(connection, submission_id, paid, terms, 1)
    return Granted(paid, len(items) - len(free), len(free) - len(paid))


def settle(
    connection: Connection,
    submission: Submission,
    delivered: Iterable[Delivered],
    terms: Terms,
    now_ms: int,
) -> int:
    """Store and book what came back; what is booked already is passed over.

    Returns:
        Tokens booked now.
    """
    by_digest = {one.digest: one for one in delivered}
    rows = _out(connection, submission.id, list(by_digest))
    if not rows:
        return 0
    flight, accounts = _flight(connection, submission.id), submission.accounts
    digests = [Digest(bytes(row.digest)) for row in rows]
    payers = [accounts[row.account] for row in rows]
    tokens = [by_digest[digest].tokens for digest in digests]
    numbers = flights.settle(
        connection,
        flight,
        shares_of(payers, tokens),
        tokens=sum(tokens),
        requests=1 if books.book_tokens(connection, submission.id, sum(tokens)) else 0,
        wait_ms=0,
        provider=terms.provider,
        began_ms=submission.opened_ms,
    )
    database.put_many(
        connection,
        terms.space_id,
        terms.space,
        digests,
        np.concatenate([by_digest[digest].vector for digest in digests]),
        [numbers[payer] for payer in payers],
        dtype=terms.dtype,
        now_ms=now_ms,
    )
    _let_go(connection, submission, rows, terms, flight)
    return sum(tokens)


def end(
    connection: Connection,
    submission: Submission,
    terms: Terms,
    doubtful: Callable[[Digest], bool] = lambda _: False,
) -> tuple[int, int]:
    """Give back every key that is still out, and end the flight.

    Args:
        connection: a writing transaction.
        submission: the submission.
        terms: what all submissions have in common.
        doubtful: keys that may stand on the bill: they are booked as ``unknown``, at our count.

    Returns:
        Keys given back, and how many of them are booked as unknown.
    """
    flight = flights.find(connection, submission.id)
    if flight is None:  # it was ended before
        return 0, 0
    back = feared = 0
    while rows := _some(connection, submission.id):
        fear = [row for row in rows if doubtful(Digest(bytes(row.digest)))]
        if fear:
            _book_unknown(connection, submission, fear, flight, terms)
        _let_go(connection, submission, rows, terms, flight)
        back, feared = back + len(rows), feared + len(fear)
        flight = _flight(connection, submission.id)
    flights.close_flight(connection, submission.id)
    budgets.release(connection, [submission.id])
    return back, feared


def _affordable(
    connection: Connection,
    items: Sequence[Wanted],
    terms: Terms,
    purse: Budgets | None,
    now_ms: int,
) -> Sequence[Wanted]:
    if purse is None or not terms.price:
        return items
    rooms = [standing.room for standing in purse.keep(connection, now_ms, now_ms)]
    price = terms.price
    asks = [Ask(i.account.project, i.account.user, i.weight * price) for i in items]
    return [items[index] for index in afford(asks, rooms).fits]


def _rows(
    submission_id: str, items: Sequence[Wanted], accounts: list[Account]
) -> list[tuple[str, bytes, int, int, int]]:
    places = {account: place for place, account in enumerate(accounts)}
    for item in items:
        if item.account not in places:
            places[item.account] = len(accounts)
            accounts.append(item.account)
    return [
        (submission_id, item.digest, places[item.account], item.tokens, item.weight)
        for item in items
    ]


def _flight(connection: Connection, submission_id: str) -> Flight:
    flight = flights.find(connection, submission_id)
    if flight is None:
        raise StateError(f"batch submission {submission_id} has ended in another process")
    return flight


def _out(connection: Connection, submission_id: str, digests: Sequence[Digest]) -> list[Row[Any]]:
    """Those of the keys that are still out."""
    rows: list[Row[Any]] = []
    for start in range(0, len(digests), BATCH):
        part = digests[start : start + BATCH]
        query = select(submission_keys).where(
            _C.submission_id == submission_id, _C.digest.in_(part)
        )
        rows.extend(connection.execute(query))
    return rows


def _some(connection: Connection, submission_id: str) -> list[Row[Any]]:
    query = select(submission_keys).where(_C.submission_id == submission_id).limit(BATCH)
    return list(connection.execute(query))


def _let_go(
    connection: Connection,
    submission: Submission,
    rows: Sequence[Row[Any]],
    terms: Terms,
    flight: Flight,
) -> None:
    """These keys are out no more: claims, shares and money follow."""
    digests = [Digest(bytes(row.digest)) for row in rows]
    claims.release(connection, terms.space_id, digests, submission.id)
    connection.execute(
        delete(submission_keys).where(_C.submission_id == submission.id, _C.digest.in_(digests))
    )
    payers = [submission.accounts[row.account] for row in rows]
    gone = shares_of(payers, [row.tokens for row in rows])
    flights.update_shares(connection, submission.id, _plus(flight.shares, gone, -1))
    freed = [
        Wanted(digest, "", row.tokens, row.weight, payer)
        for digest, row, payer in zip(digests, rows, payers, strict=True)
    ]
    _hold(connection, submission.id, freed, terms, -1)


def _book_unknown(
    connection: Connection,
    submission: Submission,
    rows: Sequence[Row[Any]],
    flight: Flight,
    terms: Terms,
) -> None:
    payers = [submission.accounts[row.account] for row in rows]
    tokens = [row.tokens for row in rows]
    flights.settle(
        connection,
        flight,
        shares_of(payers, tokens),
        tokens=sum(tokens),
        requests=0,
        wait_ms=0,
        provider=terms.provider,
        began_ms=submission.opened_ms,
        outcome=flights.UNKNOWN,
    )


def _hold(
    connection: Connection, submission_id: str, items: Iterable[Wanted], terms: Terms, sign: int
) -> None:
    """Reserve for these as well, or no more."""
    held: dict[budgets.Payer, int] = budgets.held_by(connection, submission_id)
    for item in items:
        payer = (item.account.project, item.account.user)
        held[payer] = held.get(payer, 0) + sign * item.weight * (terms.price or 0)
    budgets.reserve(connection, submission_id, held)


def _plus(shares: Sequence[Share], more: Sequence[Share], sign: int) -> tuple[Share, ...]:
    sums: dict[Account, int] = {share.account: share.tokens for share in shares}
    for share in more:
        sums[share.account] = sums.get(share.account, 0) + sign * share.tokens
    return tuple(Share(account, tokens) for account, tokens in _positive(sums).items())


def _positive(sums: Mapping[Account, int]) -> dict[Account, int]:
    return {account: tokens for account, tokens in sums.items() if tokens > 0}
