"""The circuit breaker's states, and how they follow each other.

Belongs here: pure functions over a frozen state, for whatever may ail: a provider, a cache
tier. Does not belong here: calling, waiting, or which outcome is a failure.

Closed lets everything through and counts failures in a row. Open lets nothing through,
for a time that doubles up to a bound. Then half-open: one call goes as a probe, and its
outcome closes or opens the circuit.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

PROBE_SECONDS: Final = 1.0
"""When to ask again while a probe is under way."""


class BreakerConfig(BaseModel):
    """When to leave what ails alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    failures_to_open: int = Field(6, ge=1)
    """Failures in a row, over all requests, after which it is left alone."""

    open_seconds: float = Field(2.0, gt=0)
    """For how long at first; doubles each time its probe fails."""

    max_open_seconds: float = Field(60.0, gt=0)
    """The longest it is left alone between two probes."""


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
