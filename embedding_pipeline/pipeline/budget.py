"""Whether a day stays within its budgets.

Belongs here: the verdict. Budgets themselves come with a later version; until then no
budget can be set, and the check says so instead of passing in silence.
"""

from embedding_pipeline.pipeline.reports import CheckVerdict, CostReport


def within_budget(report: CostReport) -> CheckVerdict:
    """The verdict for one day's costs."""
    return CheckVerdict(
        True,
        "No budget is set, so nothing limits spending; the day's cost is in the metadata.",
        {"cost_usd": report.cost_nano_usd / 1e9, "budgets": 0},
        blocking=False,
    )
