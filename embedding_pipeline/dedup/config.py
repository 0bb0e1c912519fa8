"""Settings of deduplication.

Belongs here: the frozen values. Does not belong here: refusing what this version does
not have (``settings``).
"""

from pydantic import BaseModel, ConfigDict, Field


class DedupConfig(BaseModel):
    """Which chunks count as copies of another. Exact and normalised copies always do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    near: bool = False
    """Also near-duplicates, by Jaccard similarity of word 5-grams."""

    threshold: float = Field(0.9, gt=0, le=1)
    """Least similarity of a near-duplicate."""

    scope_days: int = Field(0, ge=0)
    """How many days back copies are looked for; 0 = within the day."""
