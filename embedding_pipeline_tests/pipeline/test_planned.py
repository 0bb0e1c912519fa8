"""A plan's running counts agree with counting everything at once."""

import hashlib
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.pipeline import planned
from embedding_pipeline.pipeline.planned import Fresh, RequestCount
from embedding_pipeline.planning.requests import RequestCaps, plan_requests
from embedding_pipeline.records import Digest

CAPS = RequestCaps(max_inputs=5, max_input_tokens=50, target_tokens=100)


def digest(number: int) -> Digest:
    return Digest(hashlib.sha256(str(number).encode()).digest())


def test_a_key_is_new_once_however_many_there_are() -> None:
    fresh = Fresh()
    size = 5 * planned._RECENT // 2
    assert sum(fresh.add(digest(number)) for number in range(size)) == size
    assert not any(fresh.add(digest(number)) for number in range(0, size, 97))
    assert fresh.add(digest(size))


def test_what_is_remembered_stays_in_few_runs() -> None:
    fresh = Fresh()
    for number in range(5 * planned._RECENT):
        fresh.add(Digest(number.to_bytes(8) + bytes(24)))
    sizes = [len(run) for run in fresh._older]
    assert sum(sizes) == 5 * planned._RECENT
    assert all(larger >= 2 * smaller for larger, smaller in pairwise(sizes))


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=60), st.integers(1, 9))
def test_requests_of_a_stream_are_those_of_the_whole_within_one_a_cut(
    texts: list[tuple[int, int]], at_once: int
) -> None:
    count = RequestCount(CAPS, at_once)
    for tokens, estimate in texts:
        count.add(tokens, estimate)
    whole = len(plan_requests([t for t, _ in texts], [e for _, e in texts], CAPS))
    sizes = [max(max(pair) / CAPS.aim, 1 / CAPS.max_inputs) for pair in texts]
    found = count.finish()
    assert min(whole, 1) <= found <= 2 * sum(sizes) + 1
    assert found >= sum(max(pair) for pair in texts) / (CAPS.aim + 50)
