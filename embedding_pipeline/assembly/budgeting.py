"""Whether the budgets allow what a plan would cost.

Belongs here: asking each budget. Does not belong here: keeping them (``ledger``).
"""

from embedding_pipeline.assembly.watching import standings
from embedding_pipeline.clock import Clock
from embedding_pipeline.ledger.standing import dollars
from embedding_pipeline.pipeline.plan import SpendingPlan
from embedding_pipeline.settings.tree import Settings


async def objections(
    settings: Settings, plan: SpendingPlan, clock: Clock
) -> tuple[str, ...] | None:
    """A sentence for each budget that does not allow the plan; None where none is set."""
    if not settings.budgets:
        return None
    found = []
    for standing in await standings(settings, clock):
        tokens = sum(
            figures.input_tokens
            for account, figures in plan.figures.items()
            if standing.concerns(account.project, account.user)
        )
        cost = tokens * (plan.chosen_price or 0)
        if cost > standing.left_nano:
            found.append(
                f"{dollars(cost)} is more than the {dollars(standing.left_nano)} left of "
                f"{standing.words()}"
            )
    return tuple(found)
