"""The circuit breaker: leave an ailing provider alone, and look in now and then.

Belongs here: the states and how they follow each other (pure), and the wrapper. Does not
belong here: waiting (``retrying`` waits for as long as ``CircuitOpen`` says).

Closed lets everything through and counts failures in a row. Open lets nothing through,
for a time that doubles up to a bound. Then half-open: one call goes as a probe, and its
outcome closes or opens the circuit. Only failures of the provider count; an answer, even
a refusal, a 429 or one that fails validation, shows that it is there (one text that always
gets a bad reply must not look like an outage).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.base import Embedder, Wrapper
from embedding_pipeline.embedders.config import BreakerConfig
from embedding_pipeline.errors import (
    CircuitOpen,
    InvalidReply,
    NoPermit,
    ProviderError,
    ProviderFault,
    TransientProviderError,
)
from embedding_pipeline.records import EmbeddingResult

PROBE_SECONDS: Final = 1.0
"""When to ask again while a probe is under way."""


class State(StrEnum):
    """Where a circuit stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Outcome(StrEnum):
    """How an admitted call ended."""

    ANSWERED = "answered"
    FAILED = "failed"
    ABANDONED = "abandoned"


@dataclass(frozen=True)
class Circuit:
    """The breaker's memory.

    Attributes:
        state: where it stands.
        failures: failures in a row while closed.
        openings: how often it opened without closing in between.
        until: while open, the instant (monotonic) from which a probe may go.
        epoch: grows with every change of state; outcomes of calls admitted in an earlier
            epoch say nothing about this one.
    """

    state: State = State.CLOSED
    failures: int = 0
    openings: int = 0
    until: float = 0.0
    epoch: int = 0


@dataclass(frozen=True)
class Admission:
    """Whether a call may go, and if not, when to come back (seconds)."""

    allowed: bool
    retry_after: float = 0.0


def admit(circuit: Circuit, now: float) -> tuple[Circuit, Admission]:
    """Let a call through, as the probe where one is due."""
    if circuit.state is State.CLOSED:
        return circuit, Admission(True)
    if circuit.state is State.HALF_OPEN:
        return circuit, Admission(False, PROBE_SECONDS)
    if now < circuit.until:
        return circuit, Admission(False, circuit.until - now)
    return replace(circuit, state=State.HALF_OPEN, epoch=circuit.epoch + 1), Admission(True)


def record(
    circuit: Circuit, epoch: int, outcome: Outcome, now: float, config: BreakerConfig
) -> Circuit:
    """Take note of how a call ended that was admitted in ``epoch``."""
    if epoch != circuit.epoch or circuit.state is State.OPEN:
        return circuit
    if circuit.state is State.HALF_OPEN:
        return _after_probe(circuit, outcome, now, config)
    if outcome is Outcome.ANSWERED:
        return replace(circuit, failures=0)
    if outcome is Outcome.ABANDONED:
        return circuit
    failures = circuit.failures + 1
    if failures < config.failures_to_open:
        return replace(circuit, failures=failures)
    return _open(circuit, now, config)


def _after_probe(circuit: Circuit, outcome: Outcome, now: float, config: BreakerConfig) -> Circuit:
    if outcome is Outcome.ANSWERED:
        return Circuit(epoch=circuit.epoch + 1)
    if outcome is Outcome.FAILED:
        return _open(circuit, now, config)
    return replace(circuit, state=State.OPEN, until=now, epoch=circuit.epoch + 1)


def _open(circuit: Circuit, now: float, config: BreakerConfig) -> Circuit:
    doubled = config.open_seconds * 2.0 ** min(circuit.openings, 30)
    return Circuit(
        State.OPEN,
        openings=circuit.openings + 1,
        until=now + min(doubled, config.max_open_seconds),
        epoch=circuit.epoch + 1,
    )


class Breaking(Wrapper):
    """One circuit for one provider.

    Args:
        wrapped: the provider.
        provider: its name.
        config: when to open, and for how long.
        clock: the time.
        on_change: told of every change of state, for logs and metrics.
    """

    def __init__(
        self,
        wrapped: Embedder,
        provider: str,
        config: BreakerConfig,
        clock: Clock,
        on_change: Callable[[State], None] | None = None,
    ) -> None:
        super().__init__(wrapped)
        self.circuit = Circuit()
        self._provider = provider
        self._config = config
        self._clock = clock
        self._on_change = on_change

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        epoch = self._admit()
        outcome = Outcome.ABANDONED
        try:
            result = await self.wrapped.embed(texts)
            outcome = Outcome.ANSWERED
            return result
        except NoPermit:
            raise  # nothing was sent: it says nothing about the provider
        except ProviderError as error:
            failed = isinstance(error, TransientProviderError)
            failed = failed and not isinstance(error, InvalidReply)
            outcome = Outcome.FAILED if failed else Outcome.ANSWERED
            raise
        finally:
            now = self._clock.monotonic()
            self._become(record(self.circuit, epoch, outcome, now, self._config))

    def _admit(self) -> int:
        circuit, admission = admit(self.circuit, self._clock.monotonic())
        self._become(circuit)
        if admission.allowed:
            return circuit.epoch
        raise CircuitOpen(
            f"{self._provider} has been failing and is left alone for now; "
            f"it is tried again in {admission.retry_after:.1f} s",
            ProviderFault(self._provider, retry_after=admission.retry_after),
        )

    def _become(self, circuit: Circuit) -> None:
        changed = circuit.state is not self.circuit.state
        self.circuit = circuit
        if changed and self._on_change is not None:
            self._on_change(circuit.state)
