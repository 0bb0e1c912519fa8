"""The settings of providers, retries and traces.

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
    """Where it is, up to and including ``/v1``; null = the kind's own address. For Azure the
    resource itself, ``https://<resource>.openai.azure.com``, without a path."""

    api_key_env: str = Field("OPENAI_API_KEY", min_length=1)
    """Environment variable that holds the key; the key itself is never a setting."""

    deployment: str | None = None
    """What Azure calls the model on the wire; null = the model's own name. For kind local, the
    model that stands in: a folder, or a name on the Hugging Face hub; null = the bundled one."""

    api_version: str = Field("2024-10-21", pattern=r"^\d{4}-\d{2}-\d{2}(-preview)?$")
    """Version of Azure's API; only Azure has one."""

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


class TracesConfig(_Config):
    """Whether requests leave spans; where to is what OpenTelemetry's own variables say."""

    enabled: bool = False
    """A span for each request and each call, by OTLP over HTTP; needs the extra ``otel``."""
