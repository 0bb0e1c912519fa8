"""The memory tier keeps what was asked for last, within its bytes."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.cache.memory import MemoryTier
from embedding_pipeline.records import digest_of

WIDTH = 4
ROW = 4 * WIDTH


def row(value: int) -> np.ndarray:
    return np.full((1, WIDTH), value, np.float32)


steps = st.lists(st.tuples(st.sampled_from(["get", "put"]), st.integers(0, 6)), max_size=60)


@given(st.integers(0, 5), steps)
def test_it_is_a_cache_of_the_least_recently_used(
    capacity: int, todo: list[tuple[str, int]]
) -> None:
    tier = MemoryTier(capacity * ROW + ROW // 2, WIDTH)
    model: OrderedDict[int, None] = OrderedDict()
    for what, key in todo:
        if what == "get":
            found = tier.get(digest_of(str(key)))
            assert (found is not None) == (key in model)
            if found is not None:
                assert (found == key).all()
                model.move_to_end(key)
        elif capacity:
            tier.put([digest_of(str(key))], row(key))
            model[key] = None
            model.move_to_end(key)
            if len(model) > capacity:
                model.popitem(last=False)
        assert len(tier) == len(model)
        assert tier.nbytes == len(model) * ROW


def test_a_vector_larger_than_the_bound_is_not_kept() -> None:
    tier = MemoryTier(ROW - 1, WIDTH)
    tier.put([digest_of("a")], row(1))
    assert tier.get(digest_of("a")) is None
    assert (len(tier), tier.nbytes) == (0, 0)


def test_what_is_kept_is_a_copy_that_nobody_can_change() -> None:
    tier, vectors = MemoryTier(10 * ROW, WIDTH), row(1)
    tier.put([digest_of("a")], vectors)
    vectors[:] = 2
    held = tier.get(digest_of("a"))
    assert held is not None
    assert (held == 1).all()
    with pytest.raises(ValueError, match="read-only"):
        held[0] = 3
