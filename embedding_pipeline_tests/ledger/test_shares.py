"""One bill is divided to the last token, in proportion, whoever the shares belong to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.ledger.shares import Share, divide, shares_of
from embedding_pipeline.records import Account

accounts = st.builds(Account, st.sampled_from("abc"), st.sampled_from(["", "u"]), st.just("d"))
share_lists = st.lists(st.integers(0, 10**6), min_size=1, max_size=9).map(
    lambda tokens: [Share(Account(str(n)), own) for n, own in enumerate(tokens)]
)


@given(st.integers(-(10**9), 10**9), share_lists)
def test_the_parts_add_up_and_none_is_off_by_a_whole_token(total: int, shares: list[Share]) -> None:
    parts = divide(total, shares)
    assert list(parts) == [share.account for share in shares]
    assert sum(parts.values()) == total
    whole = sum(share.tokens for share in shares)
    for share in shares:
        fair = total * share.tokens / whole if whole else total / len(shares)
        assert abs(parts[share.account] - fair) < 1 + 1e-6


@given(share_lists)
def test_the_own_count_is_divided_as_it_was_added_up_also_when_taken_back(
    shares: list[Share],
) -> None:
    whole = sum(share.tokens for share in shares)
    assert divide(whole, shares) == {share.account: share.tokens for share in shares}
    assert divide(-whole, shares) == {share.account: -share.tokens for share in shares}


@given(st.lists(st.tuples(accounts, st.integers(0, 99)), max_size=30))
def test_shares_are_sums_by_account_in_order_of_appearance(
    texts: list[tuple[Account, int]],
) -> None:
    shares = shares_of([account for account, _ in texts], [tokens for _, tokens in texts])
    assert [share.account for share in shares] == list(dict.fromkeys(a for a, _ in texts))
    for share in shares:
        assert share.tokens == sum(own for account, own in texts if account == share.account)


@pytest.mark.parametrize(("total", "parts"), [(7, [3, 2, 2]), (0, [0, 0, 0]), (2, [1, 1, 0])])
def test_what_is_left_over_goes_to_the_first_among_equals(total: int, parts: list[int]) -> None:
    shares = [Share(Account(name), 5) for name in "abc"]
    assert list(divide(total, shares).values()) == parts


def test_what_is_left_over_goes_to_the_largest_remainder() -> None:
    shares = [Share(Account("large"), 5), Share(Account("small"), 1)]
    assert list(divide(10, shares).values()) == [8, 2]  # of 8.33 and 1.67


def test_shares_without_tokens_are_equal() -> None:
    shares = [Share(Account(name), 0) for name in "ab"]
    assert list(divide(10, shares).values()) == [5, 5]
