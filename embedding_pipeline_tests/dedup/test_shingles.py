"""Shingles and their similarity, against sets of strings."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.dedup.shingles import jaccard, shingles_of

WORDS = st.lists(st.sampled_from("abc"), max_size=14)
TEXTS = st.lists(WORDS.map(" ".join), min_size=2, max_size=5)


def model(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[n : n + 5]) for n in range(len(words) - 4)}


@given(TEXTS)
def test_similarity_is_that_of_the_sets(texts: list[str]) -> None:
    shingles, sets = shingles_of(texts), [model(text) for text in texts]
    for row, own in enumerate(sets):
        assert len(shingles.of(row)) == len(own)
        for other, its in enumerate(sets):
            expected = len(own & its) / len(own | its) if own | its else 0.0
            assert jaccard(shingles.of(row), shingles.of(other)) == expected


@given(TEXTS, st.data())
def test_some_rows_in_another_order_are_the_same_texts(
    texts: list[str], data: st.DataObject
) -> None:
    rows = data.draw(st.permutations(range(len(texts))))
    shingles = shingles_of(texts)
    some = shingles.at(np.array(rows, np.int64))
    assert [some.of(place) for place in range(len(rows))] == [shingles.of(row) for row in rows]


def test_a_text_of_four_words_has_none() -> None:
    assert shingles_of(["one two three four", "a b c d e"]).counts.tolist() == [0, 1]


def test_characters_are_the_words_of_chinese() -> None:
    assert shingles_of(["\u4e2d\u534e\u4eba\u6c11\u5171\u548c\u56fd"]).counts.tolist() == [3]
