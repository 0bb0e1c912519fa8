"""Settings of deduplication, and the arithmetic that follows from the threshold.

Belongs here: the frozen values, and what they mean in hashes, bands and rows. Does not
belong here: making signatures (``signing``).
"""

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

SHINGLE_WORDS: Final = 5
"""Texts are compared by their runs of this many words; a shorter text has none."""

HASHES: Final = 128
"""Minimal hashes in the signature of a text."""

MISSED: Final = 1e-3
"""How likely a pair that is exactly at the threshold may escape the bands, at most."""


@dataclass(frozen=True)
class Banding:
    """How the hashes of a signature are grouped to find candidates.

    Two texts of Jaccard similarity s agree in one minimal hash with probability s, in a
    band of r hashes with sʳ, and in at least one of b bands with 1 - (1 - sʳ)ᵇ.

    Attributes:
        bands: b.
        rows: r.
    """

    bands: int
    rows: int

    def found(self, similarity: float) -> float:
        """How likely two texts of that similarity become candidates."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


def banding(threshold: float) -> Banding:
    """The longest bands that still find a pair at the threshold, save for ``MISSED``.

    Longer bands have fewer candidates to verify. With 128 hashes: 8 rows × 16 bands at
    0.9, 5 × 25 at 0.8, 2 × 64 at 0.5; 3 × 42 at 0.6 and 4 × 32 at 0.7.
    """
    choices = [Banding(HASHES // rows, rows) for rows in range(1, HASHES // 2)]
    good = [choice for choice in choices if 1 - choice.found(threshold) <= MISSED]
    return good[-1] if good else choices[0]


class DedupConfig(BaseModel):
    """Which chunks count as copies of another. Exact and normalised copies always do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    near: bool = True
    """Also near-duplicates, by Jaccard similarity of word 5-grams."""

    threshold: float = Field(0.9, gt=0, le=1)
    """Least similarity of a near-duplicate to the text that stands for it."""

    scope_days: int = Field(0, ge=0, le=366)
    """How many days back copies are looked for; 0 = within the day."""

    within_project: bool = True
    """Whether a text only stands for texts of its own project (tenant)."""

    @property
    def banding(self) -> Banding:
        """Bands and rows of a signature; no bands when near-duplicates are not looked for."""
        return banding(self.threshold) if self.near else Banding(0, 0)
