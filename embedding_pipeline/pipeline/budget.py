"""Whether a day stays within its budgets, and what is left undone where it does not.

Belongs here: the verdict. Does not belong here: keeping budgets (``ledger.budgets``).
"""

from collections.abc import Mapping, Sequence

from embedding_pipeline.ledger.deferred import BUDGET, Backlog, backlogs
from embedding_pipeline.ledger.standing import Standing, dollars
from embedding_pipeline.pipeline.reports import CheckVerdict, CostReport
from embedding_pipeline.service.core import ServiceCore


async def within_budgets(
    service: ServiceCore, reports: Sequence[CostReport]
) -> Mapping[str, CheckVerdict]:
    """The verdict for each day's costs, as the budgets stand now."""
    budgets, now = service.budgets, service.now_ms()
    if budgets is None:
        return {report.partition: _no_budget(report) for report in reports}
    number, price = service.space_id, service.price or 0
    standings = await service.store.write(lambda c: budgets.keep(c, now, now))
    waiting = await service.store.read(lambda c: backlogs(c, number))
    mine = {
        report.partition: [one for one in waiting if one.account.partition == report.partition]
        for report in reports
    }
    return {
        report.partition: judge_budgets(report, standings, mine[report.partition], price)
        for report in reports
    }


def _no_budget(report: CostReport) -> CheckVerdict:
    return CheckVerdict(
        True,
        "No budget is set, so nothing limits spending; the day's cost is in the metadata.",
        {"cost_usd": report.cost_nano_usd / 1e9, "budgets": 0},
    )


def judge_budgets(
    report: CostReport, standings: Sequence[Standing], waiting: Sequence[Backlog], price: int
) -> CheckVerdict:
    """Work left undone for want of money is an error; a share that people watch, a warning.

    Args:
        report: the day's costs.
        standings: every budget.
        waiting: what is deferred of this day.
        price: nano-USD a token.
    """
    undone = [one for one in waiting if one.reason == BUDGET]
    chunks = sum(one.chunks for one in undone)
    cost = sum(one.tokens for one in undone) * price
    figures: dict[str, int | float | str] = {
        "cost_usd": report.cost_nano_usd / 1e9,
        "budgets": len(standings),
        "deferred": chunks,
        "deferred_cost_usd": cost / 1e9,
        **{f"spent_usd, {one.name}": one.spent_nano / 1e9 for one in standings},
        **{f"limit_usd, {one.name}": one.limit_nano / 1e9 for one in standings},
    }
    if undone:
        return CheckVerdict(
            False,
            f"{chunks} chunks of {report.partition} are deferred: to embed them costs up to "
            f"{dollars(cost)}. {_why(undone, standings, price)}",
            figures,
        )
    watched = [one for one in standings if one.reached()]
    if watched:
        words = "; ".join(f"{one.share:.0%} of {one.words()}" for one in watched)
        return CheckVerdict(False, f"Not much is left: {words}.", figures, blocking=False)
    return CheckVerdict(True, "Every budget has room.", figures)


def _why(undone: Sequence[Backlog], standings: Sequence[Standing], price: int) -> str:
    """The budgets that have no room for it and when they will, or that they have by now."""
    full = [
        standing
        for standing in standings
        if any(
            standing.concerns(one.account.project, one.account.user)
            and one.least_tokens * price > standing.room.unspent_nano
            for one in undone
        )
    ]
    if not full:
        return "There is room again: run this day again, or switch recovery_sensor on."
    return (
        f"There is no room in {'; '.join(one.words() for one in full)}. Then, or when the limit "
        "is raised, run this day again, or leave it to recovery_sensor."
    )
