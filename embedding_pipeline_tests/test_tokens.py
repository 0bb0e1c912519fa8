"""Counting: toktok against tiktoken, both for real and without a network."""

import base64
import hashlib
import importlib
import inspect
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toktok
from hypothesis import example, given
from hypothesis import strategies as st

from embedding_pipeline.errors import ConfigurationError, MissingExtra
from embedding_pipeline.tokens import (
    ENCODING,
    VOCABULARY_SHA256,
    VOCABULARY_URL,
    TiktokenCounter,
    TokenCounter,
    ToktokCounter,
    api_estimate,
    default_counter,
)

RECORDED = [
    # Counted once by tiktoken 0.14. A count that changes here changes plans and bills.
    ("", 0),
    ("a", 1),
    ("The quick brown fox jumps over the lazy dog.", 10),
    ("We don't know what they'll do; it's theirs, and you're SURE I'VE seen it.", 24),
    ("An extraordinarily uncharacteristic antidisestablishmentarian", 10),
    ("Zażółć gęślą jaźń, größer als Straße, où êtes-vous ?", 23),
    ("Съешь же ещё этих мягких французских булок", 28),
    ("我们今天讨论了文本嵌入的成本和速度。", 20),
    ("吾輩は猫である。名前はまだ無い。", 21),
    ("다람쥐 헌 쳇바퀴에 타고파", 23),
    ("النص العربي يُكتب من اليمين إلى اليسار", 25),
    ("שלום עולם", 10),
    ("สวัสดีชาวโลก", 13),
    ("नमस्ते दुनिया", 13),
    ("🧠🚀😀", 8),
    ("👩‍👩‍👧‍👦 🏳️‍🌈 🇯🇵", 33),
    ("e\u0301 vs \u00e9", 4),
    ("def f(x: int) -> dict[str, int]:\n    return {'x': x ** 2}\n", 22),
    ("SELECT id, count(*) FROM chunks WHERE day >= '2025-01-01' GROUP BY 1;", 23),
    ('{"id": 1, "values": [0.1, 2e-7, null]}', 22),
    ("\tif (a && b) {\r\n\t\treturn;\r\n\t}\r\n", 12),
    (" " * 100, 2),
    ("\n" * 50, 3),
    ("a    b\t\tc \n \n  d   ", 9),
    ("\u3000\u00a0\u2003x\u200b", 6),
    ("0123456789 1,234,567.89 3.14159", 17),
    ("!!!???...---===***", 6),
    ("<|endoftext|>", 7),
    ("before<|endoftext|>after <|fim_prefix|><|endofprompt|>", 21),
    ("aGVsbG8gd29ybGQgaGVsbG8gd29ybGQ=", 21),
    ("x" * 1000, 125),
    ("\x00\x01\x02", 3),
    ("https://example.org/a/b?c=d&e=%20f#g", 14),
]
TEXTS = [text for text, _ in RECORDED]
COUNTS = [count for _, count in RECORDED]

# Lone surrogates (Cs) are no text: sources reject them. Unassigned code points (Cn) are left
# out because toktok knows the characters first assigned in Unicode 17 and tiktoken does not
# yet: next to punctuation the two may differ by a token there. What this Python calls
# unassigned contains all of those, since it knows no Unicode 17 either.
_ASSIGNED = st.characters(exclude_categories=("Cs", "Cn"))
_FRAGMENTS = st.sampled_from(
    [*TEXTS, "'s", "'LL", " 've", "\r", "\r\n\r\n", "\u00a0", "\u2028", "٣"]
)
ANY_TEXT = st.one_of(
    st.text(_ASSIGNED, max_size=200),
    st.lists(st.one_of(_FRAGMENTS, st.text(_ASSIGNED, max_size=5)), max_size=12).map("".join),
    st.tuples(_ASSIGNED, st.integers(1, 400)).map(lambda run: run[0] * run[1]),
)


def _rank_file() -> bytes:
    """The vocabulary as tiktoken expects it in its cache, rebuilt from the one inside toktok."""
    values = toktok._encoding(ENCODING).token_byte_values()
    return b"".join(base64.b64encode(value) + b" %d\n" % rank for rank, value in enumerate(values))


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for tiktoken that holds the genuine vocabulary."""
    content = _rank_file()
    assert hashlib.sha256(content).hexdigest() == VOCABULARY_SHA256
    folder = tmp_path_factory.mktemp("tiktoken")
    name = hashlib.sha1(VOCABULARY_URL.encode(), usedforsecurity=False).hexdigest()
    (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="session")
def reference(vocabulary: Path) -> Iterator[TiktokenCounter]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(vocabulary))
        yield TiktokenCounter()


@pytest.fixture(scope="session")
def counter() -> TokenCounter:
    return default_counter()


def test_tiktoken_pins_the_vocabulary_we_name() -> None:
    source = inspect.getsource(importlib.import_module("tiktoken_ext.openai_public"))
    assert VOCABULARY_URL in source
    assert VOCABULARY_SHA256 in source


@pytest.mark.parametrize(("text", "count"), RECORDED, ids=range(len(RECORDED)))
def test_both_count_what_was_recorded(
    text: str, count: int, counter: TokenCounter, reference: TiktokenCounter
) -> None:
    assert counter.count([text]).tolist() == [count]
    assert reference.count([text]).tolist() == [count]


@given(texts=st.lists(ANY_TEXT, max_size=6))
def test_toktok_counts_as_tiktoken_does(
    texts: list[str], counter: TokenCounter, reference: TiktokenCounter
) -> None:
    assert counter.count(texts).tolist() == reference.count(texts).tolist()


def test_every_assigned_character_counts_the_same(
    counter: TokenCounter, reference: TiktokenCounter
) -> None:
    texts = [
        f"a{character}.{character}b"
        for character in map(chr, range(0, 0x110000, 7))
        if unicodedata.category(character) not in {"Cs", "Cn"}
    ]
    assert len(texts) > 30_000
    np.testing.assert_array_equal(counter.count(texts), reference.count(texts))


@given(text=ANY_TEXT, limit=st.integers(0, 60))
@example(text="hello 🧠", limit=2)
@example(text="  \n  \n x", limit=1)
def test_truncated_text_is_a_prefix_within_the_limit(
    text: str, limit: int, counter: TokenCounter, reference: TiktokenCounter
) -> None:
    for one in (counter, reference):
        shorter = one.truncate(text, limit)
        assert text.startswith(shorter)
        assert counter.count([shorter])[0] <= limit
        if counter.count([text])[0] <= limit:
            assert shorter == text


def test_counts_are_int32_and_in_order(counter: TokenCounter, reference: TiktokenCounter) -> None:
    for one in (counter, reference, ToktokCounter(threads=2)):
        counts = one.count(TEXTS)
        assert counts.dtype == np.int32
        assert counts.tolist() == COUNTS
        assert one.count([]).shape == (0,)


@given(texts=st.lists(ANY_TEXT, max_size=6))
def test_the_estimate_is_a_quarter_of_the_bytes_rounded_up(texts: list[str]) -> None:
    estimate = api_estimate(texts)
    assert estimate.dtype == np.int32
    assert estimate.tolist() == [(len(text.encode()) + 3) // 4 for text in texts]


@pytest.mark.parametrize("content", [None, b"not the vocabulary"])
def test_a_missing_vocabulary_is_named_and_not_fetched(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = hashlib.sha1(VOCABULARY_URL.encode(), usedforsecurity=False).hexdigest()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    with pytest.raises(ConfigurationError, match="TIKTOKEN_CACHE_DIR") as caught:
        TiktokenCounter()
    assert str(tmp_path / name) in str(caught.value)
    assert (tmp_path / name).exists() == (content is not None)


def test_without_tiktoken_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(MissingExtra, match=r"embedding-pipeline\[tiktoken\]"):
        TiktokenCounter()


def test_the_counters_are_loaded_on_use() -> None:
    program = (
        "import sys, embedding_pipeline.tokens\n"
        "print(sorted({'toktok', 'tiktoken'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"
