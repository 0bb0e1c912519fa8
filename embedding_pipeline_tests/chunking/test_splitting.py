"""Splitting: no chunk over the bound, nothing of the document lost."""

import gzip
import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedding_pipeline.chunking.config import ChunkingConfig
from embedding_pipeline.chunking.splitting import MAX_STRETCH, Markup, Splitter
from embedding_pipeline.tokens import default_counter

COUNTER = default_counter()

_PROSE = ("word ", "longer words, even. ", "\n", "\n\n", "    x\n", " " * 30, "\r\n", "\u2028")
_MARKDOWN = (
    "# Title\n\n",
    "- item\n",
    "`code` ",
    "**bold** ",
    "> quote\n",
    "| a | b |\n|---|---|\n",
)
_CODE = ("```python\ndef f():\n    pass\n```\n", "aGVsbG8gd29ybGQ" * 5, "x" * 50, "!?" * 9)
_SCRIPTS = ("汉字", "。", "النص ", "🧠", "👩‍👩‍👧‍👦", "e\u0301", "\u200b", "\x1c", "<|endoftext|>")
_WORDS = st.sampled_from([*_PROSE, *_MARKDOWN, *_CODE, *_SCRIPTS])
_ASSIGNED = st.characters(exclude_categories=("Cs", "Cn"))
DOCUMENT = st.lists(_WORDS | st.text(_ASSIGNED, max_size=20), max_size=60).map("".join)
MARKUP = st.sampled_from(["text", "markdown"])


def _split(text: str, markup: Markup, most: int, overlap: int) -> list[str]:
    config = ChunkingConfig(max_tokens=most, overlap_tokens=overlap)
    return list(Splitter(config, COUNTER).split(text, markup))


def _letters(*texts: str) -> str:
    """Everything but white space, which is trimmed between chunks."""
    return "".join("".join(text.split()) for text in texts)


@given(text=DOCUMENT, markup=MARKUP, most=st.integers(16, 60))
@example(text="x" * 5000, markup="text", most=16)
@example(text="🧠" * 500, markup="markdown", most=16)
def test_nothing_of_a_document_is_lost_and_nothing_added(
    text: str, markup: Markup, most: int
) -> None:
    assert _letters(*_split(text, markup, most, 0)) == _letters(text)


@given(text=DOCUMENT, markup=MARKUP, most=st.integers(16, 60), overlap=st.integers(0, 15))
@example(text="x" * 5000, markup="text", most=16, overlap=15)
@example(text="🧠" * 500, markup="markdown", most=16, overlap=3)
@example(text="汉字" * 40 + "\x1c\n\n" + "汉字" * 40, markup="text", most=16, overlap=0)
def test_no_chunk_is_over_the_bound_or_blank(
    text: str, markup: Markup, most: int, overlap: int
) -> None:
    chunks = _split(text, markup, most, overlap)
    assert all(count <= most for count in COUNTER.count(chunks))
    assert all(_letters(chunk) and chunk in text for chunk in chunks)


@given(
    separators=st.lists(st.sampled_from([" ", ". ", "\n", "\n\n", "; "]), max_size=150),
    markup=MARKUP,
    most=st.integers(16, 60),
    overlap=st.integers(0, 15),
)
def test_chunks_that_repeat_still_hold_everything_in_order(
    separators: list[str], markup: Markup, most: int, overlap: int
) -> None:
    text = "".join(f"w{number}{mark}" for number, mark in enumerate(separators))
    end = 0
    for chunk in _split(text, markup, most, overlap):
        # A chunk may be nothing but the full stop that was one token too many.
        numbers = [int(word) for word in re.findall(r"w(\d+)", chunk)]
        first = numbers[0] if numbers else end
        assert first <= end
        assert numbers == list(range(first, first + len(numbers)))
        end = max(end, first + len(numbers))
    assert end == len(separators)


@pytest.mark.parametrize("overlap", [0, 30])
def test_chunks_repeat_no_more_than_they_may(overlap: int) -> None:
    text = "\n\n".join(f"Sentence number {number} says something." for number in range(500))
    chunks = _split(text, "text", 100, overlap)
    repeated = 0
    for before, after in pairwise(chunks):
        shared = next((n for n in range(len(after), 0, -1) if before.endswith(after[:n])), 0)
        assert COUNTER.count([after[:shared]])[0] <= overlap
        repeated += shared
    assert (repeated > 0) == (overlap > 0)


def test_a_short_document_is_one_chunk() -> None:
    assert _split("\n A short text.  \n", "text", 512, 64) == ["A short text."]
    fits = "words " * 500
    assert _split(fits, "text", 512, 64) == [fits.strip()]
    assert _split("", "text", 512, 64) == _split(" \n\n", "markdown", 512, 64) == []


def test_markdown_is_cut_at_headings() -> None:
    section = "A sentence about it. " * 20
    text = "".join(f"## Part {number}\n\n{section}\n\n" for number in range(6))
    chunks = _split(text, "markdown", 128, 0)
    assert [chunk.splitlines()[0] for chunk in chunks] == [f"## Part {n}" for n in range(6)]


@pytest.mark.parametrize(
    "unit", ["汉字", "word ", "word\n", "a", "🧠", "line of text, with a comma.\n\n", "\u0301"]
)
def test_a_very_long_document_is_cut_in_bounded_stretches(unit: str) -> None:
    text = unit * (3 * MAX_STRETCH // len(unit))
    chunks = _split(text, "text", 2048, 0)
    assert max(COUNTER.count(chunks)) <= 2048
    assert _letters(*chunks) == _letters(text)


def test_stretches_end_between_paragraphs() -> None:
    paragraph = "word " * 200
    text = "\n\n".join([paragraph.strip()] * (2 * MAX_STRETCH // len(paragraph)))
    chunks = _split(text, "text", 250, 0)
    assert set(chunks) == {paragraph.strip()}


def test_long_real_documents(shared_data: Path) -> None:
    with gzip.open(shared_data / "nasty" / "long_docs.jsonl.gz", "rt") as lines:
        documents = [json.loads(line)["text"] for line in lines]
    for text in documents:
        for markup in ("text", "markdown"):
            chunks = _split(text, markup, 512, 64)
            counts = COUNTER.count(chunks)
            assert max(counts) <= 512
            assert counts.mean() > 300
            assert _letters(*_split(text, markup, 512, 0)) == _letters(text)
