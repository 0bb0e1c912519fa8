"""Groups of batches: all of them, in order, within the window where they can be."""

from itertools import chain, pairwise

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.service.fitting import fitting
from embedding_pipeline_tests.service.streams import batch

SIZES = st.lists(st.integers(0, 9), max_size=12)


@given(SIZES, st.integers(1, 12))
def test_groups_hold_everything_in_order_and_end_only_where_they_must(
    sizes: list[int], rows: int
) -> None:
    works = [batch([f"text {n}" for n in range(size)]) for size in sizes]
    groups = list(fitting(works, rows))
    assert list(chain.from_iterable(groups)) == works
    assert all(groups)
    assert all(sum(map(len, group)) <= rows or len(group) == 1 for group in groups)
    for group, after in pairwise(groups):
        assert sum(map(len, group)) + len(after[0]) > rows


def test_a_single_batch_is_a_group() -> None:
    work = batch(["one"])
    assert list(fitting(work, 1)) == [[work]]
