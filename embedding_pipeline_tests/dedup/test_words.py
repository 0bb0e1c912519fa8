"""Words as numbers, against words as strings."""

import re
import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.dedup.keys import normalized
from embedding_pipeline.dedup.words import words_of

UNSPACED = re.compile("[\u3041-\u30ff\u3400-\u9fff\u0e01-\u0eff]")
ALPHABET = "abz019_ .,-\u00e9\u0301\u0928\u093f\u4e2d\u6587\u65e5\u3042\u30a2\u0e01\u0e34\uac00"
TEXTS = st.lists(st.text(ALPHABET) | st.text().map(normalized), max_size=6)


def model(text: str) -> list[str]:
    """Words as strings, one character after another."""
    words: list[str] = []
    inside = False
    for character in text:
        belongs = re.match(r"\w", character) or unicodedata.category(character).startswith("M")
        if belongs and not UNSPACED.match(character) and inside:
            words[-1] += character
        elif belongs:
            words.append(character)
        inside = bool(belongs) and not UNSPACED.match(character)
    return words


def numbers(texts: list[str]) -> list[list[int]]:
    words = words_of(texts)
    return [words.hashes[start:stop].tolist() for start, stop in pairwise(words.offsets)]


@given(st.lists(st.text(ALPHABET), max_size=6))
def test_numbers_are_equal_where_words_are(texts: list[str]) -> None:
    found, expected = numbers(texts), [model(text) for text in texts]
    assert [len(text) for text in found] == [len(text) for text in expected]
    pairs = {
        (word, number)
        for words, its in zip(expected, found, strict=True)
        for word, number in zip(words, its, strict=True)
    }
    assert len({word for word, _ in pairs}) == len({number for _, number in pairs}) == len(pairs)


@given(TEXTS)
def test_a_texts_words_do_not_depend_on_its_company(texts: list[str]) -> None:
    assert numbers(texts) == [numbers([text])[0] for text in texts]


def test_a_letters_place_in_a_word_matters() -> None:
    one, other, long = numbers(["ab", "ba", "aab"])
    assert one != other != long != one


def test_words_are_the_same_far_into_a_long_text() -> None:
    (found,) = numbers(["the words of a text " * 50_000])
    assert len(found) == 250_000
    assert len(set(found)) == 5
    assert found[:5] == found[-5:] == numbers(["the words of a text"])[0]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("\u6771\u4eac\u90fd", 3),
        ("\u30c6\u30b9\u30c8abc", 4),
        ("\u0e01\u0e32\u0e23", 3),
        ("\ud55c\uad6d\uc5b4 \ub9d0", 2),
        ("don't", 2),
        ("\u0928\u093f", 1),
        ("...", 0),
        ("", 0),
    ],
)
def test_how_many_words_a_text_has(text: str, count: int) -> None:
    assert len(numbers([text])[0]) == count


def test_no_texts_have_no_words() -> None:
    words = words_of([])
    assert len(words.hashes) == 0
    assert words.offsets.tolist() == [0]
