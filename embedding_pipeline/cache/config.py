"""Settings of the cache room."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class CacheConfig(BaseModel):
    """Bounds of the cache tiers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_mb: int = Field(256, ge=0)
    """Memory tier for online callers; 0 turns it off. Backfills go past it."""

    max_gb: float | None = Field(None, gt=0)
    """Bound on the database tier: bytes of stored vectors; null keeps everything."""

    evict_active: bool = False
    """Whether the bound may take vectors of the spaces in use as well."""

    dtype: Literal["float32", "float16"] = "float32"
    """How a stored vector is written. float32 is lossless."""

    redis_ttl_days: float = Field(7.0, gt=0)
    """How long a vector stays in the Redis tier after it was written there."""
