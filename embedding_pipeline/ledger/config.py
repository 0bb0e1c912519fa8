"""Settings of the ledger room."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class BudgetConfig(BaseModel):
    """A bound on spending."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scope: str = Field(pattern=r"^(all|project:.+|user:.+)$")
    period: Literal["day", "month", "total"]
    limit_usd: float = Field(ge=0)
    alert_at: tuple[float, ...] = (0.8,)
