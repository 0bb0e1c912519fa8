"""What makes two texts the same text."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.dedup.keys import DIGEST_BYTES, digest, normalized, salt

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
TRICKY = st.text(
    st.sampled_from(
        "aA1 \t\n"
        "\u00df\u1e9e\u0130\u0131\u03a3\u03c2\u03c3\u01f0\u0149\u1fb4\u0390\ufb01\u212b\u212a"
        "\u0301\u0307\u0308\u030c\u0313\u0345\u00a0\u3000\u200b"
    )
)
"""Characters whose case, or place in a composition, is unlike that of most."""


@given(TEXTS | TRICKY)
def test_normalising_again_changes_nothing(text: str) -> None:
    assert normalized(normalized(text)) == normalized(text)


def test_normalising_again_changes_nothing_for_any_character() -> None:
    characters = [chr(code) for code in range(sys.maxunicode) if not 0xD800 <= code < 0xE000]
    once = [normalized(character) for character in characters]
    again = [normalized(text) for text in once]
    assert once == again


@given(TEXTS | TRICKY)
def test_unicode_form_and_outer_space_make_no_difference(text: str) -> None:
    for form in ("NFC", "NFD"):
        assert normalized(f" \n{unicodedata.normalize(form, text)}\t ") == normalized(text)


@given(st.lists(TEXTS | TRICKY), st.lists(st.sampled_from([" ", "\n", "\t\u00a0", "  \u3000"])))
def test_any_white_space_is_one_space(words: list[str], gaps: list[str]) -> None:
    gaps += [" "] * len(words)
    text = "".join(word + gap for word, gap in zip(words, gaps, strict=False))
    assert normalized(text) == normalized(" ".join(words))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "STRASSE"),
        ("caf\u00e9", "CAFE\u0301"),
        ("ΟΔΟΣ", "οδος"),
        ("a  b\r\n c ", "A b\u00a0C"),
    ],
)
def test_case_space_and_form_make_no_other_text(one: str, other: str) -> None:
    assert normalized(one) == normalized(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("ab", "a b"), ("cafe", "café"), ("x²", "x2"), ("1,000", "1000"), ("ﬀ", "f"), ("end.", "end")],
)
def test_anything_else_does(one: str, other: str) -> None:
    assert normalized(one) != normalized(other)


def test_a_key_belongs_to_its_project() -> None:
    assert digest("mine", "text") != digest("yours", "text")
    assert salt("mine") != salt("yours")


def test_project_and_text_do_not_run_into_each_other() -> None:
    assert digest("a", "bc") != digest("ab", "c")


@given(TEXTS)
def test_a_key_is_short_and_always_the_same(text: str) -> None:
    assert digest("p", text) == digest("p", text)
    assert len(digest("p", text)) == DIGEST_BYTES


@given(st.text(st.characters(max_codepoint=127)))
def test_the_short_way_for_ascii_leads_to_the_same(text: str) -> None:
    assert normalized(text) == normalized(text + "\u00e9").removesuffix("\u00e9").rstrip(" ")
