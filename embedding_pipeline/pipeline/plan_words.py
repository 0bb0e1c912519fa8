"""A plan as keys for programs and as sentences for people.

Belongs here: reading a plan off. Does not belong here: counting (``plan``), or where it is
shown.
"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from embedding_pipeline.batch_api.decision import Verdict
from embedding_pipeline.pipeline.plan import Figures, SpendingPlan, cost
from embedding_pipeline.pipeline.words import duration, usd_or_unknown


def summary(plan: SpendingPlan) -> dict[str, Any]:
    """The plan as a whole; money in nano-USD, null where it is not known."""
    return {
        "space": str(plan.space),
        "days": list(plan.days),
        **priced(plan, plan.total),
        "requests": plan.requests,
        "estimated_tokens": plan.estimated_tokens,
        "seconds": plan.seconds,
        "tokens_per_minute": plan.rates.tokens,
        "requests_per_minute": plan.rates.requests,
        "price_nano_usd": plan.price,
        "batch_price_nano_usd": plan.batch_price,
        "price_checked": plan.price_checked.isoformat(),
        "way": plan.verdict.way if plan.verdict else "sync",
        "way_reason": plan.verdict.reason if plan.verdict else "",
        "allowed": plan.allowed,
        "objections": None if plan.objections is None else list(plan.objections),
    }


def priced(plan: SpendingPlan, figures: Figures) -> dict[str, Any]:
    """Some figures with what they cost, in nano-USD; null where that is not known."""
    return {
        **asdict(figures),
        "duplicates": figures.duplicates,
        "cost_nano_usd": cost(figures.input_tokens, plan.price),
        "batch_cost_nano_usd": cost(figures.input_tokens, plan.batch_price),
    }


def sentences(plan: SpendingPlan) -> Iterator[str]:
    """The plan in words."""
    total = plan.total
    yield (
        f"{plan.space}: {total.to_embed:,} texts to embed, {total.input_tokens:,} tokens in "
        f"{plan.requests:,} requests."
    )
    yield _price(plan)
    if total.to_embed:
        yield _time(plan)
    if total.to_embed and plan.price and plan.verdict:
        yield _way(plan.verdict)
    if plan.objections is None:
        yield "Budgets: none is set."
    else:
        yield from (f"Budgets: {why}" for why in plan.objections or ["they allow it."])


def _price(plan: SpendingPlan) -> str:
    if plan.price == 0:
        return "Cost: none; the model runs on this machine."
    batch = f"{usd_or_unknown(plan.batch_cost_nano_usd)} through the Batch API"
    return (
        f"Cost: {usd_or_unknown(plan.cost_nano_usd)}, {batch} "
        f"(prices as of {plan.price_checked.isoformat()})."
    )


def _way(verdict: Verdict) -> str:
    way = "through the Batch API" if verdict.way == "batch" else "one request at a time"
    return f"A run sends it {way}: {verdict.reason}."


def _time(plan: SpendingPlan) -> str:
    rates = [
        f"{rate:,} {what} a minute"
        for what, rate in (("tokens", plan.rates.tokens), ("requests", plan.rates.requests))
        if rate is not None
    ]
    if plan.seconds is None:
        return "Time: unknown; no rate limit is set, and none was learned yet."
    return f"Time: about {duration(plan.seconds)} at {' and '.join(rates)}."


def table(plan: SpendingPlan, most: int) -> str:
    """The plan by day and project as Markdown, at most so many lines."""
    head = "| day | project | chunks | to embed | tokens | cost | Batch API |"
    lines = [head, "|---|---|---:|---:|---:|---:|---:|"]
    groups = plan.by("partition", "project")
    for (day, project), figures in list(groups.items())[:most]:
        costs = (cost(figures.input_tokens, price) for price in (plan.price, plan.batch_price))
        counts = (figures.chunks, figures.to_embed, figures.input_tokens)
        cells = [day, project, *(f"{n:,}" for n in counts), *map(usd_or_unknown, costs)]
        lines.append(f"| {' | '.join(cells)} |")
    if len(groups) > most:
        lines.append(f"| … | {len(groups) - most:,} more | | | | | |")
    return "\n".join(lines)
