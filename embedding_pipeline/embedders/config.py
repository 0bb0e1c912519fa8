"""The settings of providers, retries and the circuit breaker.

Belongs here: what a user may set, with its bounds. Does not belong here: reading the
environment or files (``settings``), or acting on any of it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ProviderConfig(_Config):
    """One place that makes vectors."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """How the ledger and the metadata call it."""

    kind: Literal["openai", "azure", "compatible", "local"]
    base_url: str | None = Field(None, pattern=r"^https?://")
    """Where it is, up to and including ``/v1``; null = the kind's own address."""

    api_key_env: str = Field("OPENAI_API_KEY", min_length=1)
    """Environment variable that holds the key; the key itself is never a setting."""

    deployment: str | None = None
    """What Azure calls the model on the wire; null = the model's own name."""

    priority: int = 0
    """Lowest first."""


class RetryConfig(_Config):
    """How much trying one request is worth."""

    max_attempts: int = Field(8, ge=1)
    """Failed calls before giving up. Being told to wait is not a failure."""

    max_seconds: float = Field(900, gt=0)
    """No attempt starts later than this after the first one."""

    timeout_seconds: float = Field(120, gt=0)
    """Deadline of one attempt, from the first byte sent to the last byte read."""


class BreakerConfig(_Config):
    """When to leave an ailing provider alone."""

    failures_to_open: int = Field(6, ge=1)
    """Failures in a row, over all requests, after which it is left alone."""

    open_seconds: float = Field(2.0, gt=0)
    """For how long at first; doubles each time its probe fails."""

    max_open_seconds: float = Field(60.0, gt=0)
    """The longest it is left alone between two probes."""
