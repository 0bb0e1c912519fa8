"""Requests: no cap is ever broken, nothing is lost or reordered, and sizes are even."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.planning.requests import RequestCaps, RequestPlan, plan_requests

MAX_TEXT = 60


@st.composite
def cap_sets(draw: st.DrawFn) -> RequestCaps:
    """Caps so small that every one of them is met, with or without a bucket."""
    text = draw(st.integers(1, MAX_TEXT))
    return RequestCaps(
        max_inputs=draw(st.integers(1, 12)),
        max_input_tokens=text,
        max_request_tokens=draw(st.integers(text, 4 * MAX_TEXT)),
        target_tokens=draw(st.integers(1, 5 * MAX_TEXT)),
        bucket=draw(st.none() | st.integers(text, 5 * MAX_TEXT)),
    )


@st.composite
def corpora(draw: st.DrawFn) -> tuple[RequestCaps, list[int], list[int]]:
    """Caps and texts that each fit on their own, by two counts that disagree freely."""
    caps = draw(cap_sets())
    limit = min(caps.max_input_tokens, caps.ceiling)
    size = draw(st.integers(0, 80))
    counts = st.lists(st.integers(0, limit), min_size=size, max_size=size)
    return caps, draw(counts), draw(counts)


def assert_within(
    plans: Sequence[RequestPlan], tokens: Sequence[int], rough: Sequence[int], caps: RequestCaps
) -> None:
    """Consecutive from the first text, figures right, and no cap broken by either count."""
    at = 0
    for plan in plans:
        assert plan.start == at
        assert 1 <= len(plan) <= caps.max_inputs
        assert plan.tokens == sum(tokens[plan.start : plan.stop]) <= caps.max_request_tokens
        assert plan.estimate == sum(rough[plan.start : plan.stop]) <= caps.max_request_tokens
        if caps.bucket is not None:
            assert max(plan.tokens, plan.estimate) <= caps.bucket
        at = plan.stop


@given(corpora())
def test_every_text_once_in_order_within_every_cap(
    corpus: tuple[RequestCaps, list[int], list[int]],
) -> None:
    caps, tokens, rough = corpus
    plans = plan_requests(tokens, rough, caps)
    assert_within(plans, tokens, rough, caps)
    assert sum(map(len, plans)) == len(tokens)


@given(corpora())
def test_what_is_planned_early_is_full_and_the_rest_is_less_than_a_request(
    corpus: tuple[RequestCaps, list[int], list[int]],
) -> None:
    caps, tokens, rough = corpus
    plans = plan_requests(tokens, rough, caps, final=False)
    assert_within(plans, tokens, rough, caps)
    done = plans[-1].stop if plans else 0
    left = plan_requests(tokens[done:], rough[done:], caps)
    assert_within(left, tokens[done:], rough[done:], caps)
    assert done + sum(map(len, left)) == len(tokens)
    sizes = [_size(*text, caps) for text in zip(tokens, rough, strict=True)]
    for plan in plans:
        own = sum(sizes[plan.start : plan.stop])
        assert own > 1 - max(sizes) - 1e-9 or _stopped(plan, tokens, rough, caps)


def _size(tokens: int, rough: int, caps: RequestCaps) -> float:
    """The share of a full request one text takes."""
    return min(1.0, max(tokens / caps.aim, rough / caps.aim, 1 / caps.max_inputs))


def _stopped(
    plan: RequestPlan, tokens: Sequence[int], rough: Sequence[int], caps: RequestCaps
) -> bool:
    """A cap does not let the next text in."""
    if len(plan) == caps.max_inputs:
        return True
    more = slice(plan.start, plan.stop + 1)
    return max(sum(tokens[more]), sum(rough[more])) > caps.ceiling


@given(st.lists(st.integers(1, 50), min_size=1, max_size=300), st.integers(50, 400))
def test_sizes_are_even_and_the_tail_is_not_tiny(tokens: list[int], target: int) -> None:
    caps = RequestCaps(max_input_tokens=50, target_tokens=target, max_request_tokens=10_000)
    sizes = [plan.tokens for plan in plan_requests(tokens, tokens, caps)]
    wanted = -(-sum(tokens) // target)
    share = sum(tokens) / wanted
    assert len(sizes) <= wanted, "no request more than needed"
    assert all(abs(size - share) <= max(tokens) for size in sizes)


@given(st.integers(1, 5000), st.integers(1, 700))
def test_short_texts_are_spread_evenly_over_requests_bound_by_their_number(
    texts: int, max_inputs: int
) -> None:
    caps = RequestCaps(max_inputs=max_inputs)
    sizes = [len(plan) for plan in plan_requests([1] * texts, [1] * texts, caps)]
    assert len(sizes) == -(-texts // max_inputs)
    assert max(sizes) - min(sizes) <= 1


def test_long_texts_before_many_short_ones_leave_no_tail_of_one() -> None:
    tokens = [500] * 100 + [1] * 2049
    plans = plan_requests(tokens, tokens, RequestCaps())
    assert min(map(len, plans)) >= 50


def test_the_same_work_in_two_batches_fills_requests_across_them() -> None:
    caps = RequestCaps(target_tokens=100, max_input_tokens=100)
    first = plan_requests([30] * 5, [30] * 5, caps, final=False)
    assert [(plan.start, plan.stop) for plan in first] == [(0, 3)]
    second = plan_requests([30] * 4, [30] * 4, caps, final=False)
    assert [(plan.start, plan.stop) for plan in second] == [(0, 3)], "2 of the first, 2 new"


def test_a_text_larger_than_the_target_does_not_leave_small_requests_behind_it() -> None:
    caps = RequestCaps(target_tokens=10, max_input_tokens=100)
    plans = plan_requests([60] + [1] * 20, [60] + [1] * 20, caps)
    assert [plan.tokens for plan in plans] == [60, 10, 10]


def test_no_request_is_empty_where_a_full_text_begins_far_beyond_its_share() -> None:
    plans = plan_requests([2, 12, 12], [2, 12, 12], RequestCaps(target_tokens=12))
    assert [plan.tokens for plan in plans] == [14, 12]


@pytest.mark.parametrize("final", [True, False])
def test_nothing_to_plan_is_no_request(final: bool) -> None:
    assert plan_requests([], [], RequestCaps(), final=final) == ()


@pytest.mark.parametrize("final", [True, False])
@pytest.mark.parametrize(("tokens", "rough"), [(8193, 1), (1, 8193)])
def test_a_text_over_a_cap_is_refused_by_either_count(final: bool, tokens: int, rough: int) -> None:
    with pytest.raises(ValueError, match="text 1 has 8193 tokens, over 8192"):
        plan_requests([1, tokens], [1, rough], RequestCaps(), final=final)


def test_a_text_over_the_bucket_is_refused() -> None:
    with pytest.raises(ValueError, match="over 1000"):
        plan_requests([1001], [1], RequestCaps(bucket=1000))


def test_the_bucket_bounds_a_request_below_its_target() -> None:
    plans = plan_requests([10] * 100, [1] * 100, RequestCaps(bucket=100))
    assert {plan.tokens for plan in plans} == {100}


def test_many_texts_are_planned_at_once_in_whole_numbers() -> None:
    tokens = np.full(200_000, 8192)
    plans = plan_requests(tokens, tokens, RequestCaps())
    assert sum(map(len, plans)) == 200_000
    assert {plan.tokens for plan in plans} <= {6 * 8192, 7 * 8192}
