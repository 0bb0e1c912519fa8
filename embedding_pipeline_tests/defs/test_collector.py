"""What a step spares the garbage collector, and that it is only for the step."""

import gc
import weakref

import pytest

from embedding_pipeline.defs.collector import sparing_the_old


class Knot:
    """Refers to itself: only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def test_the_old_is_spared_until_the_end_and_the_new_is_not() -> None:
    old = Knot()
    seen = weakref.ref(old)
    with sparing_the_old():
        del old
        new = weakref.ref(Knot())
        gc.collect()
        assert new() is None
        assert seen() is not None
    gc.collect()
    assert seen() is None


def test_a_step_that_fails_leaves_nothing_frozen() -> None:
    with pytest.raises(ValueError, match="no"), sparing_the_old():
        raise ValueError("no")
    assert gc.get_freeze_count() == 0
