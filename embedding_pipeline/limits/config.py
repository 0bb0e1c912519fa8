"""Settings of the limits room."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LimitsConfig(_Config):
    """How much may be asked of a provider, by all processes together."""

    requests_per_minute: int | None = Field(None, gt=0, le=10_000_000)
    """null = learned from the API's headers."""

    tokens_per_minute: int | None = Field(None, gt=0, le=1_000_000_000)
    """null = learned from the API's headers. Counted as the API does: UTF-8 bytes / 4."""

    max_in_flight: int = Field(16, ge=1, le=1000)
    """Requests of one process that are out at the same time."""

    burst_seconds: float = Field(10.0, ge=0.5, le=45)
    """How much may go at once, in seconds' worth of the limit. Less is smoother; a provider
    that enforces its limit over short windows needs less."""

    max_wait_seconds: float = Field(900.0, gt=0)
    """Longest wait for a permit."""

    ramp: bool = False
    """Start at 1M tokens a minute and grow 50 % in 15 minutes, as OpenAI asks of new load;
    false = only after it refused a steeper ramp."""


class TenantConfig(_Config):
    """One project's share of the rate limit."""

    project: str = Field(min_length=1)
    weight: float = Field(1.0, ge=0.001, le=1000)
    """Shares under contention are in proportion to the weights; what one leaves, others use."""

    priority: Literal["urgent", "normal", "bulk"] = "normal"
    """What the project's work counts as, where a call does not say ``urgent`` or ``bulk``."""
