"""One batch while it fills: every key at its row, derived rows made whole, refusals final."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.errors import TextRefused
from embedding_pipeline.records import Account, Vectors
from embedding_pipeline.service.batch import OpenBatch
from embedding_pipeline.service.preparing import Prepared, assemble
from embedding_pipeline.service.work import Refusal, Row, WorkBatch
from embedding_pipeline_tests.service.harness import ACCOUNT, MAX_TOKENS, rules

WIDTH = 2
LONG = "a" * MAX_TOKENS + "b" * MAX_TOKENS


def prepare(*texts: str) -> Prepared:
    counter = rules().counter
    return rules("split_mean").prepare(texts, counter.count(texts), [ACCOUNT] * len(texts))


def open_batch(*texts: str) -> OpenBatch:
    work = WorkBatch("d", [], texts, np.zeros(len(texts), np.int32), [Account("p")] * len(texts))
    return OpenBatch(work, prepare(*texts), WIDTH)


def vectors(*rows: tuple[float, float]) -> Vectors:
    return np.array(rows, np.float32)


def test_a_text_is_one_key_and_a_long_one_a_key_a_part() -> None:
    prepared = prepare("one", "", LONG, "two")
    assert [item.text for item in prepared.items] == ["one", LONG[:64], LONG[64:], "two"]
    assert list(prepared.rows) == [0, 2, 2, 3]
    assert prepared.refused == {1: Refusal("blank")}
    assert prepared.derived == {2: ("split_mean", 2)}


@given(st.permutations(range(6)), st.integers(1, 5))
def test_keys_may_come_in_any_order_and_portions(order: list[int], portion: int) -> None:
    batch = open_batch(*"abcdef")
    source = np.arange(12, dtype=np.float32).reshape(6, 2)
    for start in range(0, 6, portion):
        places = order[start : start + portion]
        decided = batch.place(places, source, places, Row.EMBEDDED)
        assert sorted(decided.tolist()) == sorted(places)
    assert batch.done
    filled = batch.filled()
    assert (filled.vectors == source).all()
    assert set(filled.status) == {Row.EMBEDDED}


def test_a_lookup_that_found_all_is_taken_as_it_is() -> None:
    batch = open_batch("a", "b")
    found = vectors((1, 0), (0, 1))
    batch.adopt(found, np.array([True, True]))
    assert np.shares_memory(batch.filled().vectors, found)


def test_a_lookup_that_found_some_fills_their_rows() -> None:
    batch = open_batch("a", "", "b")
    decided = batch.adopt(vectors((0, 0), (0, 1)), np.array([False, True]))
    assert decided.tolist() == [2]
    assert not batch.done
    batch.place([0], vectors((1, 0)), [0], Row.EMBEDDED)
    filled = batch.filled()
    assert filled.vectors.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert filled.status.tolist() == [Row.EMBEDDED, Row.REFUSED, Row.CACHED]


def test_a_derived_row_is_whole_with_its_last_part() -> None:
    batch = open_batch(LONG, "x")
    assert batch.place([0, 2], vectors((1, 0), (0, 1)), [0, 1], Row.CACHED).tolist() == [1]
    assert batch.place([1], vectors((0, 1)), [0], Row.CACHED).tolist() == [0]
    assert batch.filled().vectors[0] == pytest.approx(np.sqrt([0.5, 0.5]))


def test_one_refused_part_refuses_the_text_for_good() -> None:
    batch = open_batch(LONG)
    assert batch.refuse(1, Refusal("refused_by_provider")).tolist() == [0]
    assert batch.refuse(0, Refusal("invalid_reply")).tolist() == []
    assert batch.place([0], vectors((1, 0)), [0], Row.EMBEDDED).tolist() == []
    filled = batch.filled()
    assert filled.refused == {0: Refusal("refused_by_provider")}
    assert not filled.vectors.any()


def test_parts_that_cancel_out_are_no_vector() -> None:
    batch = open_batch(LONG)
    opposite = vectors((1, 0), (-1, 0))
    assert batch.place([0, 1], opposite, [0, 1], Row.EMBEDDED).tolist() == [0]
    filled = batch.filled()
    assert filled.refused == {0: Refusal("no_direction")}
    assert filled.status.tolist() == [Row.REFUSED]
    with pytest.raises(TextRefused, match="text 0 cannot be embedded") as caught:
        assemble(prepare(LONG), list(opposite), WIDTH)
    assert caught.value.reason == "no_direction"


def test_a_single_part_is_taken_bit_by_bit() -> None:
    prepared = rules("truncate").prepare([LONG], rules().counter.count([LONG]), [ACCOUNT])
    odd = vectors((0.1, 0.2))  # of no unit norm: not touched all the same
    assert (assemble(prepared, list(odd), WIDTH) == odd).all()
    assert prepared.derived == {0: ("truncated", 1)}
