"""The calls behind a delivery or an error, as the books want them.

Belongs here: reading attempts off results and errors. Pure. Does not belong here: booking
them (``flying``).
"""

from collections.abc import Iterable, Sequence
from typing import Final

from embedding_pipeline.errors import BudgetExceeded, CircuitOpen, NoPermit, ProviderError
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.records import Attempt, EmbeddingResult

NOT_SENT: Final = (CircuitOpen, NoPermit)
"""Errors of our own making: no call was made."""

_NO_CALLS: Final = frozenset(kind.__name__ for kind in NOT_SENT)


def attempts_of(exc: ProviderError) -> Sequence[Attempt]:
    """The calls behind an error; one, where nothing retried and something was sent."""
    if exc.attempts or isinstance(exc, NOT_SENT):
        return exc.attempts
    fault = exc.fault
    code = fault.code or str(fault.status or "")
    return [Attempt(fault.provider, type(exc).__name__, code, 0.0, fault.maybe_billed)]


def ended_by(exc: BaseException, flight: Flight) -> Sequence[Attempt]:
    """The calls of the request that was out when ``exc`` ended the flight."""
    if isinstance(exc, ProviderError):
        return attempts_of(exc)
    if isinstance(exc, BudgetExceeded):  # between two calls: none is out
        return getattr(exc, "attempts", ())
    # Cut off: it may have been billed.
    earlier: Sequence[Attempt] = getattr(exc, "attempts", ())
    if getattr(exc, "between_calls", False):
        return earlier
    return [*earlier, Attempt(flight.provider, type(exc).__name__, maybe_billed=True)]


def not_stored(result: EmbeddingResult) -> Attempt:
    """The call that delivered, should its vectors not be kept: it was billed all the same."""
    return Attempt(result.provider, "NotStored", maybe_billed=True)


def lost_among(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Those that may have been billed."""
    return [attempt for attempt in attempts if attempt.maybe_billed]


def calls_of(attempts: Iterable[Attempt]) -> int:
    """How many of them reached a provider."""
    return sum(attempt.error not in _NO_CALLS for attempt in attempts)


def waited_ms(attempts: Iterable[Attempt]) -> int:
    """Time waited after them, in milliseconds."""
    return int(sum(attempt.waited_seconds for attempt in attempts) * 1000)
