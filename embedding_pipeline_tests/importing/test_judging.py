"""What is taken of a foreign cache, and under which word the rest is left out."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.importing.found import Found
from embedding_pipeline.importing.judging import Demands, Judged, Refused, judge
from embedding_pipeline.records import digest_of

WIDTH = 4
UNIT = np.array([0.5, 0.5, -0.5, 0.5], np.float32)


def found(position: int, vector: object, text: str = "text", **more: str) -> Found:
    return Found(position, text, np.asarray(vector, np.float32), **more)


def judged(*entries: Found, **demands: object) -> tuple[Judged, Refused]:
    refused = Refused()
    return judge(entries, Demands(WIDTH, **demands), refused), refused  # type: ignore[arg-type]


def test_each_fault_has_its_word_and_its_positions() -> None:
    kept, refused = judged(
        found(3, UNIT),
        found(4, UNIT[:3]),
        found(5, [np.nan, 0, 0, 1]),
        found(6, [np.inf, 0, 0, 1]),
        found(7, 2 * UNIT),
        found(8, np.zeros(4)),
        found(9, UNIT, "\ud800"),
        found(10, UNIT, model="provider/other"),
        Found(11, None, None, problem="no_text"),
        found(12, UNIT, "too long"),
        models=frozenset({"mine"}),
        too_long=lambda texts: np.array([text == "too long" for text in texts]),
    )
    assert kept.positions == [3]
    assert refused.examples == {
        "wrong_dimensions": [4],
        "not_finite": [5, 6],
        "not_unit": [7, 8],
        "not_utf8": [9],
        "other_model": [10],
        "no_text": [11],
        "too_long": [12],
    }
    assert {reason: len(rows) for reason, rows in refused.examples.items()} == refused.counts


def test_lengths_are_mended_only_if_asked_and_what_is_right_stays_bit_by_bit() -> None:
    kept, refused = judged(
        found(0, UNIT), found(1, 3 * UNIT), found(2, [0.0] * 4), renormalise=True
    )
    assert kept.positions == [0, 1]
    assert (kept.vectors[0] == UNIT).all()
    assert np.allclose(kept.vectors[1], UNIT)
    assert refused.counts == {"not_unit": 1}


def test_line_breaks_are_what_the_tool_sent() -> None:
    kept, _ = judged(found(0, UNIT, "a\nb"), newlines_as_spaces=True)
    assert kept.digests == [digest_of("a b")]
    kept, _ = judged(found(0, UNIT, "a\nb"))
    assert kept.digests == [digest_of("a\nb")]


def test_a_model_may_be_called_by_its_last_name() -> None:
    kept, _ = judged(
        found(0, UNIT, model="openai/Mine"), found(1, UNIT), models=frozenset({"mine"})
    )
    assert kept.positions == [0, 1]


def test_positions_are_named_up_to_ten() -> None:
    _, refused = judged(*(found(n, [1.0]) for n in range(25)))
    assert refused.counts == {"wrong_dimensions": 25}
    assert refused.examples == {"wrong_dimensions": list(range(10))}


numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(st.lists(st.lists(numbers, min_size=3, max_size=5), max_size=12), st.booleans())
def test_whatever_is_found_is_taken_or_counted_and_what_is_taken_is_right(
    rows: list[list[float]], renormalise: bool
) -> None:
    entries = [found(position, row, f"text {position}") for position, row in enumerate(rows)]
    kept, refused = judged(*entries, renormalise=renormalise)
    assert len(kept) + sum(refused.counts.values()) == len(rows)
    assert kept.vectors.shape == (len(kept), WIDTH)
    norms = np.linalg.norm(kept.vectors.astype(np.float64), axis=1)
    assert np.abs(norms - 1).max(initial=0) < 2e-3
    assert [digest_of(f"text {position}") for position in kept.positions] == list(kept.digests)
