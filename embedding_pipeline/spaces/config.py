"""Settings of the spaces room.

Belongs here: what a model change may cost, what the gate asks for, how long old spaces
stay, and the reason behind each default. Does not belong here: deciding anything.
"""

from decimal import Decimal

from pydantic import BaseModel, ConfigDict, Field

_NANO = 10**9


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GateConfig(_Section):
    """What a new space must show before it takes the old one's place.

    Measured on real vectors (OpenAI's three models, the local one, words and fragments of
    words counted; abstracts, headlines, paragraphs): two models share 0.14 to 0.71 of their
    nearest neighbours, the more alike the more, and find 0.52 to 1.00 of each other's close
    pairs, either way about. With a fifth of the vectors random, 0.2 of the new vectors are
    isolated instead of 0.00 to 0.11; with half of them mixed up, 0.18 to 0.44 of the old close
    pairs are found; blurred to half the recall, 0.01 to 0.40 of the new ones are old ones.
    """

    sample: int = Field(2000, ge=10, le=20_000)
    """Chunks that are compared, evenly over all days."""

    k: int = Field(10, ge=1, le=100)
    """How many neighbours count."""

    min_overlap: float = Field(0.12, ge=0, le=1)
    """Mean share of the old space's nearest neighbours that the new one has as well."""

    min_close_pairs: float = Field(0.5, ge=0, le=1)
    """Of the chunks whose nearest stands out most in the old space, a quarter of all: the
    share that have it among their nearest in the new one."""

    min_new_pairs: float = Field(0.45, ge=0, le=1)
    """The same the other way about: of the chunks whose nearest stands out most in the new
    space, the share that had it among their nearest in the old one."""

    max_isolated: float = Field(0.12, ge=0, le=1)
    """Share of chunks no nearer to any other than random vectors are, above the old space's."""

    min_self_retrieval: float = Field(0.99, ge=0, le=1)
    """Share of chunks that are their own nearest neighbour (or of equal text)."""

    min_document_ratio: float = Field(0.85, ge=0)
    """How often the nearest other chunk is of the same document, new against old."""

    max_bad_norms: float = Field(0.0, ge=0, le=1)
    """Share of vectors that are not finite or not of length one."""

    max_duplicates: float = Field(0.01, ge=0, le=1)
    """Share of vectors that equal the vector of another text."""


class SpacesConfig(_Section):
    """How a change of the model is carried out."""

    max_auto_cost_usd: Decimal = Field(Decimal(5), ge=0)
    """A change that costs more waits for ``spaces promote --approve``."""

    keep_days: int = Field(30, ge=1)
    """Days an old space is kept after another took its place; until then it is a way back."""

    partitions_per_run: int | None = Field(None, ge=1)
    """Most days in one run of a backfill; null: neighbouring days are one run.

    Dagster's own ``--partition-range`` wants null.
    """

    gate: GateConfig = GateConfig()

    @property
    def max_auto_cost_nano_usd(self) -> int:
        """``max_auto_cost_usd`` as money is counted."""
        return int(self.max_auto_cost_usd * _NANO)
