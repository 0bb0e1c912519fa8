"""The circuit breaker: leave an ailing provider alone, and look in now and then.

Belongs here: the wrapper, and which errors say that a provider ails. Does not belong here:
how states follow each other (``circuit``), or waiting (``retrying`` waits for as long as
``CircuitOpen`` says).

Only failures of the provider count; an answer, even a refusal, a 429 or one that fails
validation, shows that it is there (one text that always gets a bad reply must not look
like an outage).
"""

from collections.abc import Callable, Sequence

from embedding_pipeline.circuit import (
    Admission,
    BreakerConfig,
    Circuit,
    Outcome,
    State,
    admit,
    record,
)
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.base import Embedder, Wrapper
from embedding_pipeline.errors import (
    CircuitOpen,
    InvalidReply,
    NoPermit,
    ProviderError,
    ProviderFault,
    TransientProviderError,
)
from embedding_pipeline.records import EmbeddingResult


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
        raise self._refusal(admission)

    def would_refuse(self) -> CircuitOpen | None:
        """What a call would be told now; None where it would go. Changes nothing."""
        _, admission = admit(self.circuit, self._clock.monotonic())
        return None if admission.allowed else self._refusal(admission)

    def _refusal(self, admission: Admission) -> CircuitOpen:
        return CircuitOpen(
            f"{self._provider} has been failing and is left alone for now; "
            f"it is tried again in {admission.retry_after:.1f} s",
            ProviderFault(self._provider, retry_after=admission.retry_after),
        )

    def _become(self, circuit: Circuit) -> None:
        changed = circuit.state is not self.circuit.state
        self.circuit = circuit
        if changed and self._on_change is not None:
            self._on_change(circuit.state)
