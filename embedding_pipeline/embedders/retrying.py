"""Trying again, and how long to wait before.

Belongs here: the decision (pure) and the wrapper that acts on it by tenacity. Does not
belong here: what an error means (``policy``), or the state of the provider (``breaking``).

Two things look alike and are not. A failure is counted: after ``max_attempts`` of them the
call is given up. Being told to wait (429, circuit breaker) is not: a storm of 429s must not
drop work while there is time. Time bounds both.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.again import about_to_repeat
from embedding_pipeline.embedders.base import Embedder, Wrapper
from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.errors import (
    BudgetExceeded,
    CircuitOpen,
    InvalidReply,
    ProviderError,
    RateLimited,
    RateRampTooSteep,
    TransientProviderError,
)
from embedding_pipeline.records import Attempt, EmbeddingResult

RETRIED: Final = (RateLimited, TransientProviderError, CircuitOpen)
"""Errors that time may cure; every other one goes straight to the caller."""

LONGEST_WINDOW: Final = 60.0

BAD_REPLIES: Final = 3
"""A reply that fails validation is billed all the same, so it is not asked for as often as
an outage is sat out: after this many the request is better split, to find the text."""


@dataclass(frozen=True)
class Pace:
    """How to wait after one class of error, in seconds.

    Attributes:
        least: wait at least this, if the server does not ask for more.
        window: the random part, at first; it doubles with every attempt.
    """

    least: float
    window: float


PACES: Final = (
    (RateRampTooSteep, Pace(5.0, 10.0)),
    (RateLimited, Pace(0.5, 1.0)),
    (CircuitOpen, Pace(0.0, 0.5)),
    (TransientProviderError, Pace(0.0, 0.5)),
)
"""Most specific first."""


@dataclass(frozen=True)
class Decision:
    """What to do after an error.

    Attributes:
        wait_seconds: wait that long, then try again; None is to give up.
        why: the reason for giving up.
    """

    wait_seconds: float | None
    why: str = ""


@dataclass(frozen=True)
class Past:
    """What a call has been through.

    Attributes:
        attempts: attempts before the one that just failed; with several providers, rounds.
        failures: failures so far, the last attempt included if it was one.
        bad_replies: those of the failures that were replies which failed validation.
        elapsed: seconds since the first attempt began.
    """

    attempts: int
    failures: int
    bad_replies: int
    elapsed: float


def decide(error: ProviderError, past: Past, config: RetryConfig, draw: float) -> Decision:
    """Whether and when to try again.

    Args:
        error: what just happened, one of ``RETRIED``.
        past: what happened before.
        config: the bounds.
        draw: a random number in [0, 1).
    """
    if isinstance(error, TransientProviderError):
        if past.failures >= config.max_attempts:
            return Decision(None, f"{past.failures} attempts have failed")
        if past.bad_replies >= BAD_REPLIES and isinstance(error, InvalidReply):
            return Decision(None, f"{past.bad_replies} replies could not be trusted")
    pace = next(pace for kind, pace in PACES if isinstance(error, kind))
    asked = error.fault.retry_after
    least = max(pace.least, asked or 0.0)
    left = config.max_seconds - past.elapsed
    if left <= 0 or least > left:
        return Decision(None, f"there is no time left of {config.max_seconds:g} s")
    longest = LONGEST_WINDOW if asked is None else min(max(asked, pace.window), LONGEST_WINDOW)
    window = min(longest, pace.window * 2.0 ** min(past.attempts, 30))
    return Decision(min(least + draw * window, left))


class Retrying(Wrapper):
    """Calls again what time may cure. No attempt begins after ``max_seconds``.

    Results say in ``attempts`` what failed before; errors carry the same attribute, and so
    does whatever else ends a call (a cancellation, books that cannot be written), with
    ``between_calls`` where no call was out when it came.
    """

    def __init__(
        self, wrapped: Embedder, config: RetryConfig, clock: Clock, rng: random.Random
    ) -> None:
        super().__init__(wrapped)
        self._config = config
        self._clock = clock
        self._random = rng

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        call = _Call(self._config, self._clock, self._random)
        try:
            result = await self._deliver(call, texts)
        except ProviderError as error:
            raise call.final(error) from error.__cause__
        except BudgetExceeded as error:  # no call is out, and none follows
            error.attempts = (*call.attempts, *error.attempts)
            raise
        except BaseException as error:
            attempts = (*call.attempts, *getattr(error, "attempts", ()))
            resting = call.resting or getattr(error, "between_calls", False)
            vars(error).update(attempts=attempts, between_calls=resting)
            raise
        return replace(
            result,
            requests=result.requests + call.requests,
            attempts=(*call.attempts, *result.attempts),
        )

    async def _deliver(self, call: "_Call", texts: Sequence[str]) -> EmbeddingResult:
        """Nearly every first attempt is the last one: tenacity comes in when it failed."""
        try:
            return await self.wrapped.embed(texts)
        except RETRIED as error:
            failed: list[ProviderError] = [error]

        async def attempt() -> EmbeddingResult:
            if failed:
                raise failed.pop()
            return await self.wrapped.embed(texts)

        loop = AsyncRetrying(
            retry=retry_if_exception_type(RETRIED),
            wait=call.wait,
            stop=call.stop,
            sleep=call.sleep,
            before_sleep=call.say,
            reraise=True,
        )
        result: EmbeddingResult = await loop(attempt)
        return result


class _Call:
    """The state of one call through its attempts."""

    def __init__(self, config: RetryConfig, clock: Clock, rng: random.Random) -> None:
        self._config = config
        self._clock = clock
        self._random = rng
        self._began = clock.monotonic()
        self._failures = 0
        self._bad_replies = 0
        self._rounds = 0
        self._decision = Decision(None)
        self.attempts: list[Attempt] = []
        self.requests = 0
        self.resting = False

    def wait(self, state: RetryCallState) -> float:
        """Decide; tenacity asks for the wait first, then whether to stop."""
        error = state.outcome.exception() if state.outcome else None
        assert isinstance(error, ProviderError)
        self._failures += isinstance(error, TransientProviderError)
        self._bad_replies += isinstance(error, InvalidReply)
        elapsed = self._clock.monotonic() - self._began
        past = Past(self._rounds, self._failures, self._bad_replies, elapsed)
        self._rounds += 1
        self._decision = decide(error, past, self._config, self._random.random())
        seconds = self._decision.wait_seconds or 0.0
        self.attempts.extend(error.attempts)  # of other providers, before this one's
        self.requests += len(error.attempts)
        self.attempts.append(attempt_of(error, seconds))
        self.resting = True
        self.requests += not isinstance(error, CircuitOpen)
        return seconds

    async def sleep(self, seconds: float) -> None:
        """Wait; the next call follows at once."""
        await self._clock.sleep(seconds)
        self.resting = False

    async def say(self, state: RetryCallState) -> None:  # noqa: ARG002
        """The call is about to be made again. Raises where it must not."""
        await about_to_repeat(self.attempts[-1])

    def stop(self, state: RetryCallState) -> bool:  # noqa: ARG002
        return self._decision.wait_seconds is None

    def final(self, error: ProviderError) -> ProviderError:
        """The error for the caller: with all attempts, and the reason for giving up."""
        if not isinstance(error, RETRIED):
            error.attempts = (*self.attempts, *error.attempts, attempt_of(error))
            return error
        seconds = self._clock.monotonic() - self._began
        message = f"{error}; given up after {seconds:.0f} s because {self._decision.why}"
        last = type(error)(message, error.fault)
        last.attempts = tuple(self.attempts)
        return last


def attempt_of(error: ProviderError, waited_seconds: float = 0.0) -> Attempt:
    """A failed call as the books keep it."""
    fault = error.fault
    code = fault.code or (str(fault.status) if fault.status else "")
    return Attempt(fault.provider, type(error).__name__, code, waited_seconds, fault.maybe_billed)
