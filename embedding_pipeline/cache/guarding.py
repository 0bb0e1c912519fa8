"""A tier that may fail without failing anybody: the cache goes on with the others.

Belongs here: the wrapper. Does not belong here: what makes a tier fail (its module), or
the durable tier, whose failure is an error: nothing is bought that cannot be kept.

Reading and writing have a circuit each: a Redis that is full still answers. What ails is
warned of once, left alone for a time that doubles up to a bound, and tried again by one
call; when it is back, that is said once.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from embedding_pipeline.cache.tier import CacheTier, Lookup, nothing
from embedding_pipeline.circuit import BreakerConfig, Circuit, Outcome, State, admit, record
from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import StateError
from embedding_pipeline.records import Digest, Vectors

log = logging.getLogger(__name__)
T = TypeVar("T")

BREAKER: Final = BreakerConfig(failures_to_open=1, open_seconds=1.0, max_open_seconds=60.0)


class Guarded(CacheTier):
    """Answers "not found" while ``wrapped`` is down, and writes nothing to it then.

    Args:
        wrapped: the tier.
        width: native dimensions.
        clock: the time.
    """

    def __init__(self, wrapped: CacheTier, width: int, clock: Clock) -> None:
        self.name = wrapped.name
        self._wrapped = wrapped
        self._width = width
        self._reading = _Guard(f"{self.name} (reading)", clock)
        self._writing = _Guard(f"{self.name} (writing)", clock)

    async def get_many(self, digests: Sequence[Digest]) -> Lookup:
        found = await self._reading.attempt(lambda: self._wrapped.get_many(digests))
        return nothing(len(digests), self._width) if found is None else found

    async def put_many(self, digests: Sequence[Digest], vectors: Vectors) -> None:
        if self._reading.closed:  # one that is away need not be found away twice
            await self._writing.attempt(lambda: self._wrapped.put_many(digests, vectors))

    async def aclose(self) -> None:
        await self._wrapped.aclose()


class _Guard:
    """One circuit around one kind of call."""

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._clock = clock
        self._circuit = Circuit()
        self._warned = False

    @property
    def closed(self) -> bool:
        """Nothing is known to ail."""
        return self._circuit.state is State.CLOSED

    async def attempt(self, call: Callable[[], Awaitable[T]]) -> T | None:
        """What the call brings; None where it fails or is not made."""
        self._circuit, admission = admit(self._circuit, self._clock.monotonic())
        if not admission.allowed:
            return None
        epoch, outcome = self._circuit.epoch, Outcome.ABANDONED
        try:
            result = await call()
            outcome = Outcome.ANSWERED
            return result
        except StateError as exc:
            outcome = Outcome.FAILED
            self._warn(exc)
            return None
        finally:
            now = self._clock.monotonic()
            self._circuit = record(self._circuit, epoch, outcome, now, BREAKER)
            self._rejoice()

    def _warn(self, exc: StateError) -> None:
        if not self._warned:
            self._warned = True
            log.warning("cache tier %s is left out until it is back: %s", self._what, exc)

    def _rejoice(self) -> None:
        if self._warned and self.closed:
            self._warned = False
            log.info("cache tier %s is back", self._what)
