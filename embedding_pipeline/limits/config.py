"""Settings of the limits room."""

from pydantic import BaseModel, ConfigDict, Field


class LimitsConfig(BaseModel):
    """How much may be asked of a provider."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: int | None = Field(None, gt=0)
    """null = learned from the API's headers."""

    tokens_per_minute: int | None = Field(None, gt=0)
    """null = learned from the API's headers."""

    max_in_flight: int = Field(16, ge=1, le=1000)
    """Requests of one process that are out at the same time."""
