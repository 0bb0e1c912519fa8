"""Dividing one bill among those it was for, to the last token.

Belongs here: integer arithmetic. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from embedding_pipeline.records import Account


@dataclass(frozen=True)
class Share:
    """What one account has in a request: its texts' tokens by our own count."""

    account: Account
    tokens: int


def shares_of(accounts: Sequence[Account], tokens: Sequence[int]) -> tuple[Share, ...]:
    """Sum tokens by account, in order of first appearance."""
    if accounts and accounts.count(accounts[0]) == len(accounts):  # as good as always
        return (Share(accounts[0], sum(tokens)),)
    sums: dict[Account, int] = {}
    # Neighbours mostly are one and the same object: it is hashed once for all of them.
    for _, run in groupby(zip(accounts, tokens, strict=True), key=lambda pair: id(pair[0])):
        (account, first), *rest = run
        sums[account] = sums.get(account, 0) + first + sum(own for _, own in rest)
    return tuple(Share(account, total) for account, total in sums.items())


def divide(total: int, shares: Sequence[Share]) -> Mapping[Account, int]:
    """Divide ``total`` in proportion to the shares; the parts add up to it exactly.

    What rounding leaves over goes to the largest remainders, ties to the first.
    Shares that are all zero are taken as equal.
    """
    weights = [share.tokens for share in shares]
    whole = sum(weights)
    if whole == 0:
        weights, whole = [1] * len(shares), len(shares)
    floors = [total * weight // whole for weight in weights]
    rest = [total * weight % whole for weight in weights]
    by_remainder = sorted(range(len(shares)), key=lambda i: (-rest[i], i))
    for i in by_remainder[: total - sum(floors)]:
        floors[i] += 1
    return {share.account: part for share, part in zip(shares, floors, strict=True)}
