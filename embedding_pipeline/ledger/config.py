"""Settings of the ledger room."""

from datetime import date
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_NANO = 10**9
_NANO_PER_USD_A_MILLION = 1000


class BudgetConfig(BaseModel):
    """A bound on spending.

    ``all`` counts every request, ``project:x`` and ``user:y`` what the ledger books for
    them. Days and months begin at midnight in ``partitions.timezone``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: str = Field(pattern=r"^(all|project:.+|user:.+)$", max_length=300)
    period: Literal["day", "month", "total"]
    limit_usd: float = Field(ge=0, le=1e9, allow_inf_nan=False)
    alert_at: tuple[float, ...] = (0.8,)

    @field_validator("alert_at")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < share <= 1 for share in value):
            raise ValueError("shares of the limit, more than 0 and at most 1, like [0.5, 0.8]")
        return tuple(sorted(set(value)))

    @property
    def limit_nano(self) -> int:
        """The limit in nano-USD."""
        return round(self.limit_usd * _NANO)


class PriceConfig(BaseModel):
    """What a model costs, in place of the catalog's price.

    Entries of the ledger keep the price they were booked at: another price changes what
    comes, never what was.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    usd_per_million_tokens: float | None = Field(ge=0, allow_inf_nan=False)
    """null: it is not known. Budgets cannot be set then."""

    batch_usd_per_million_tokens: float | None = Field(None, ge=0, allow_inf_nan=False)
    checked: date
    """The day the price was read."""

    @field_validator("usd_per_million_tokens", "batch_usd_per_million_tokens")
    @classmethod
    def _whole(cls, value: float | None) -> float | None:
        nano = (value or 0.0) * _NANO_PER_USD_A_MILLION
        if abs(nano - round(nano)) > 1e-6:
            raise ValueError("prices are counted in steps of 0.001 USD for a million tokens")
        return value

    @property
    def nano_usd_per_token(self) -> int | None:
        """nano-USD for a token sent one request at a time, None if unknown."""
        return _per_token(self.usd_per_million_tokens)

    @property
    def batch_nano_usd_per_token(self) -> int | None:
        """nano-USD for a token sent by the Batch API, None if unknown."""
        return _per_token(self.batch_usd_per_million_tokens)


def _per_token(usd_per_million: float | None) -> int | None:
    return None if usd_per_million is None else round(usd_per_million * _NANO_PER_USD_A_MILLION)
