"""Scenarios about money: a budget that two processes share, and a price said beforehand.

Belongs here: ``budget`` and ``preview``, against a server that counts real tokens. A client
that has no such thing says so.
"""

from benchmarks.peers.previews import PREVIEWS
from benchmarks.peers.stage import Bench, Row

PRICE = 20e-9
"""USD a token of the model asked for."""

TOKENS_EACH = 170
"""Tokens of a text of the corpus, about."""

BUDGETS = ("ours", "LiteLLM")
"""Clients that know a bound on spending."""


def budget(bench: Bench, client: str) -> Row:
    """Two processes at once, each with as much to do as the budget of both allows.

    Answers take 200 ms. LiteLLM's bound is `litellm.max_budget`, which in this version counts what
    chats cost, and no embeddings; the budgets of its proxy, a server of its own, are not measured.
    """
    if client not in BUDGETS:
        return Row(note="no such thing: knows no budget")
    count = bench.size.chunks // 2
    usd = count * TOKENS_EACH * PRICE
    with bench.stage(exact=True, latency=0.2) as (server, folder):
        both = [
            bench.start(client, server, folder, count, first=first, budget=usd, batch=64)
            for first in (0, count)
        ]
        ends = [bench.finish(one) for one in both]
        spent = server.books.cost_nano_usd / 1e9
    errors = ", ".join(sorted({made.error for made in ends if made.error}))
    note = f"{sum(made.count for made in ends):,} of {2 * count:,} handed over"
    figures = {"overshoot": max(spent / usd - 1, 0.0), "spent": spent / usd}
    return Row(figures, f"{note}; {errors}" if errors else note)


def preview(bench: Bench, client: str) -> Row:
    """What a client says some texts will take against what they are then billed.

    Half of them were embedded before, and one in ten comes twice.
    """
    if client not in PREVIEWS:
        return Row(note="no such thing: says no price beforehand")
    count = bench.size.chunks // 2
    with bench.stage(exact=True) as (server, folder):
        before = bench.run(client, server, folder, count)
        texts = {"first": count // 2, "repeated": count // 10}
        said = bench.run(client, server, folder, count, preview=True, **texts)
        server.reset()
        made = bench.run(client, server, folder, count, **texts)
        billed = server.books.tokens
    error = before.error or said.error or made.error
    if error:
        return Row(note=error)
    return Row({"error": abs(said.count - billed) / max(billed, 1)})
