"""Every error this project raises, in one tree.

Belongs here: the classes and what a caller may read from them. Does not belong
here: deciding what to do about one (``embedders.policy``), or mapping a foreign
exception (that happens at the one edge that met it, with ``raise … from exc``).

::

    EmbeddingPipelineError
    ├── ConfigurationError          settings, keys, models: a person must change something
    │   ├── SettingsError             a settings file or variable is wrong
    │   └── MissingExtra              an optional dependency is not installed
    ├── SourceError                 chunks cannot be read (path, format, permission)
    ├── StateError                  the shared store is locked, full, broken or newer than us
    │   └── StateUnreachable          its server is away: nothing was begun
    ├── DataError                   a dataset under data_dir is missing or damaged
    │   └── ConservationError         chunks in ≠ chunks accounted for
    ├── ServiceError                the service itself says no
    │   ├── ServiceClosed             the service is closed or closing
    │   ├── Overloaded                too many callers wait; come back later
    │   └── InBatch                   the text is in a batch, whose result is not there yet
    ├── BudgetExceeded              a budget does not allow the reservation
    ├── AlertNotSent                nobody took an alert; it is sent again later
    ├── TextRefused                 one text cannot be embedded, ever or for now
    └── ProviderError               a provider did not deliver; carries status, type, code
        ├── RateLimited               wait, then the same request again
        ├── RateRampTooSteep          slow the ramp: wait longer, and halve the rate
        ├── RequestTooLarge           split the request
        ├── InputRefused              one input is bad: go to it, or bisect
        ├── KeyExhausted              quota or spend limit: stop the key
        ├── ProviderRefused           key, permission, model: configuration, never retried
        ├── CircuitOpen               the breaker keeps requests away for now
        ├── NoPermit                  our own rate limit gave no permit; nothing was sent
        └── TransientProviderError    5xx, timeout, broken connection: try again
            └── InvalidReply            a 200 whose content fails validation
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


class EmbeddingPipelineError(Exception):
    """Root of the tree. ``str(error)`` says what is wrong, where, and what to do."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(EmbeddingPipelineError):
    """A person has to change settings, keys or the installation."""

    exit_code = 2


class SettingsError(ConfigurationError):
    """A settings file or environment variable is wrong; names file, key and remedy."""


class MissingExtra(ConfigurationError):
    """An optional dependency is needed; the message names the extra that brings it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs an optional dependency; "
            f"install it with: pip install 'embedding-pipeline[{extra}]'"
        )
        self.extra = extra


class SourceError(EmbeddingPipelineError):
    """Chunks cannot be read at all. A bad row is not an error: it is kept aside."""

    exit_code = 3


class StateError(EmbeddingPipelineError):
    """The shared store cannot be used: unreachable, locked, full, read-only or newer."""

    exit_code = 5


class StateUnreachable(StateError):
    """The server of the shared store is away, so that nothing of a transaction was begun."""


class StateInterrupted(StateError):
    """The server of the shared store went away within a transaction.

    Whether it was kept is not known. Whoever can begin anew, as after a kill, may.
    """


class DataError(EmbeddingPipelineError):
    """A dataset under ``data_dir`` is missing, damaged or of another space."""

    exit_code = 6


class ConservationError(DataError):
    """The books do not balance: a chunk is neither embedded nor explained."""


class ServiceError(EmbeddingPipelineError):
    """The service itself refuses a call."""


class ServiceClosed(ServiceError):
    """The service is closed, or closes before this call could be served."""


class Overloaded(ServiceError):
    """The online queue is full; the caller should come back later."""


class InBatch(ServiceError):
    """The text is in a batch of the Batch API; its result is there within 24 hours."""


class BudgetExceeded(EmbeddingPipelineError):
    """A budget does not allow what was about to be spent.

    Attributes:
        attempts: calls made for this one before (``records.Attempt``).
    """

    exit_code = 7
    attempts: tuple[Any, ...] = ()


class AlertNotSent(EmbeddingPipelineError):
    """An alert was not taken by the other side. Never holds where it was sent."""


class TextRefused(EmbeddingPipelineError):
    """One text cannot be embedded. ``reason`` is a stable word, never the text."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class ProviderFault:
    """What a provider said when it did not deliver.

    Attributes:
        provider: the provider's name in the settings.
        status: HTTP status, or None when no response arrived.
        type: ``error.type`` of the body, if any.
        code: ``error.code`` of the body, if any.
        retry_after: seconds the server asked to wait, if it did.
        input_index: position of the refused input in the request, if it was named.
        request_id: the provider's id of the request, if any.
        maybe_billed: the provider may have charged for this attempt.
        rate_headers: what the answer said about rate limits, as it came.
    """

    provider: str
    status: int | None = None
    type: str | None = None
    code: str | None = None
    retry_after: float | None = None
    input_index: int | None = None
    request_id: str | None = None
    maybe_billed: bool = False
    rate_headers: Mapping[str, str] = field(default_factory=dict)


class ProviderError(EmbeddingPipelineError):
    """A provider did not deliver; ``fault`` says how, as data.

    Attributes:
        fault: what the provider said.
        attempts: every call made for this one, the last included (``records.Attempt``);
            empty where nothing retries.
    """

    exit_code = 4

    def __init__(self, message: str, fault: ProviderFault) -> None:
        super().__init__(message)
        self.fault = fault
        self.attempts: tuple[Any, ...] = ()


class RateLimited(ProviderError):
    """The bucket is empty: wait (``fault.retry_after`` at least), then try again."""


class RateRampTooSteep(RateLimited):
    """Within the limits, but growing too fast (429 ``slow_down``, 503 overloaded)."""


class RequestTooLarge(ProviderError):
    """The request as a whole is over a cap and can never succeed: split it."""


class InputRefused(ProviderError):
    """The request was refused for what one input holds."""


class KeyExhausted(ProviderError):
    """Quota or spend limit reached: no request with this key can succeed."""


class ProviderRefused(ProviderError):
    """Wrong key, no permission, unknown model or region: configuration."""

    exit_code = 2


class CircuitOpen(ProviderError):
    """The circuit breaker is open; ``fault.retry_after`` says when it may close."""


class NoPermit(ProviderError):
    """Our own rate limit gave no permit, and nothing was sent.

    The wait reached its bound (the message says who is ahead), or the limit's state cannot
    be reached.
    """


class TransientProviderError(ProviderError):
    """Server error, timeout or broken connection: the same request may succeed."""


class InvalidReply(TransientProviderError):
    """A success whose content fails validation. Its vectors are never used."""
