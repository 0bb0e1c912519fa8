"""The policy for text the API would refuse, on every kind of writing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedding_pipeline.planning.inputs import (
    Policy,
    combine,
    fits,
    judge,
    prefix_within,
    split_within,
)
from embedding_pipeline.tokens import api_estimate, default_counter

COUNTER = default_counter()
LIMIT = 24

PIECES = [
    "plain words of English ",
    "敏捷的棕色狐狸跳过了懒狗",
    "тысячи слов ",
    "العربية ",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "e\u0301\u0301\u0301",
    "<|endoftext|>",
    "<|fim_prefix|><|endofprompt|>",
    "\n\n\n",
    " " * 40,
    "\u3000\u2003\x85",
    "0123456789" * 5,
    "aGVsbG8gd29ybGQ=" * 4,
    "def f(x):\n\treturn x ** 2\n",
    "\x00\x01\x7f",
    "ﷺ𒐫",
]

texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=30).map("".join)


def encodable(text: str) -> str:
    """Without half characters: sources and the service keep those out."""
    return text.encode(errors="ignore").decode()


def weigh(text: str) -> int:
    """Tokens by whichever count is higher."""
    return max(int(COUNTER.count([text])[0]), int(api_estimate([text])[0]))


@given(texts.map(encodable), st.integers(8, 60))
def test_parts_fit_by_both_counts_and_join_to_the_whole_but_for_blanks(
    text: str, limit: int
) -> None:
    parts = split_within(text, limit, COUNTER.truncate)
    assert all(weigh(part) <= limit for part in parts)
    assert all(part.strip() for part in parts)
    rest = text
    for part in parts:
        before, _, rest = rest.partition(part)
        assert not before.strip(), "only blanks are left out"
    assert not rest.strip()


@given(texts.map(encodable), st.integers(8, 60))
def test_a_prefix_is_one_fits_by_both_counts_and_wastes_little(text: str, limit: int) -> None:
    prefix = prefix_within(text, limit, COUNTER.truncate)
    assert text.startswith(prefix)
    assert weigh(prefix) <= limit
    if prefix != text:
        assert weigh(text[: len(prefix) + 8]) >= limit - 8, "a few characters more would be over"


@given(texts.map(encodable), st.sampled_from(["reject", "truncate", "split_mean"]))
def test_every_text_is_refused_with_a_reason_or_sent_within_the_caps(
    text: str, policy: Policy
) -> None:
    counts = COUNTER.count([text])
    if fits([text], counts, api_estimate([text]), LIMIT)[0]:
        assert text.strip()
        assert weigh(text) <= LIMIT
        return
    judgement = judge(text, policy, LIMIT, COUNTER.truncate)
    assert judgement.refused == (judgement.verdict in {"blank", "too_long"})
    assert judgement.refused or judgement.verdict in {"truncated", "split_mean"}
    assert (judgement.verdict == "blank") == (not text.strip())
    assert all(part.strip() and weigh(part) <= LIMIT for part in judgement.parts)
    if policy == "reject":
        assert judgement.refused


@pytest.mark.parametrize("blank", ["", " ", "\n\t\r", "\u3000\u2003\u00a0", "\x85\x1c"])
@pytest.mark.parametrize("policy", ["reject", "truncate", "split_mean"])
def test_blank_text_is_never_sent(blank: str, policy: Policy) -> None:
    assert not fits([blank], np.array([1], np.int32), np.array([1], np.int32), LIMIT)[0]
    assert judge(blank, policy, LIMIT, COUNTER.truncate).verdict == "blank"


def test_text_that_begins_with_pages_of_blanks_is_not_cut_down_to_them() -> None:
    text = " \n" * 500 + "the point"
    assert judge(text, "truncate", LIMIT, COUNTER.truncate).verdict == "too_long"
    parts = judge(text, "split_mean", LIMIT, COUNTER.truncate).parts
    assert "the point" in "".join(parts)


def test_either_count_alone_makes_a_text_too_long() -> None:
    tokens, rough = np.array([9, 1, 8], np.int32), np.array([1, 9, 8], np.int32)
    assert fits(["a", "b", "c"], tokens, rough, 8).tolist() == [False, False, True]


def test_special_tokens_are_plain_text() -> None:
    text = "<|endoftext|>" * 20
    parts = split_within(text, LIMIT, COUNTER.truncate)
    assert "".join(parts) == text
    assert len(parts) > 1


def test_a_hundred_kilobytes_of_one_line_are_cut_at_the_real_cap() -> None:
    text = "敏捷的棕色狐狸" * 5000
    parts = split_within(text, 8192, COUNTER.truncate)
    assert "".join(parts) == text
    assert all(7500 < weigh(part) <= 8192 for part in parts[:-1])


unit_rows = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.just(4)),
    elements=st.floats(-1, 1, width=32),
).filter(lambda rows: bool((np.linalg.norm(rows, axis=1) > 1e-3).all()))


def test_a_character_no_prefix_of_which_fits_stands_alone() -> None:
    assert split_within("abc", 1, lambda _text, _limit: "") == ("a", "b", "c")


def test_what_fits_in_bytes_to_the_last_one_is_cut_once() -> None:
    cuts: list[str] = []

    def cut(text: str, _limit: int) -> str:
        cuts.append(text)
        return text

    assert prefix_within("é" * 4, 2, cut) == "é" * 4
    assert len(cuts) == 1


@given(unit_rows, st.data())
def test_the_mean_of_parts_has_unit_norm_and_their_weighted_direction(
    rows: np.ndarray, data: st.DataObject
) -> None:
    vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    weights = np.array([data.draw(st.integers(1, 9000)) for _ in rows], np.int32)
    try:
        whole = combine(vectors.astype(np.float32), weights)
    except ValueError:
        mean = weights @ vectors.astype(np.float64) / weights.sum()
        assert np.linalg.norm(mean) < 1e-6
        return
    assert whole.dtype == np.float32
    assert abs(float(np.linalg.norm(whole.astype(np.float64))) - 1) < 1e-6
    assert float((weights @ vectors.astype(np.float64)) @ whole) > 0


def test_a_heavier_part_counts_for_more() -> None:
    east, north = np.eye(2, dtype=np.float32)
    whole = combine(np.stack([east, north]), np.array([3, 1], np.int32))
    assert whole == pytest.approx(np.array([3, 1]) / np.sqrt(10))


@pytest.mark.parametrize(
    ("rows", "weights"),
    [
        ([[1, 0], [-1, 0]], [1, 1]),
        ([[1, 0]], [0]),
        ([[np.nan, 1]], [1]),
    ],
    ids=["opposite", "weightless", "not a number"],
)
def test_parts_without_a_direction_are_no_vector(
    rows: list[list[float]], weights: list[int]
) -> None:
    with pytest.raises(ValueError, match="no direction"):
        combine(np.array(rows, np.float32), np.array(weights, np.int32))


@settings(max_examples=20)
@given(st.text(alphabet=st.characters(min_codepoint=0x1F300, max_codepoint=0x1FAFF), min_size=1))
def test_emoji_are_never_cut_in_half(text: str) -> None:
    assert "".join(split_within(text, 8, COUNTER.truncate)) == text
