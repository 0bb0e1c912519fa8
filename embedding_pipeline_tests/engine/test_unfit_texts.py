"""Text of every kind goes through or is quarantined with a reason; no 400 comes from a cap."""

import base64
import json
import random
from pathlib import Path

import numpy as np
import pytest

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.tokens import default_counter
from embedding_pipeline_tests.engine.oracle import DAY, Outcome, assert_right, prepare, run
from embedding_pipeline_tests.engine.quick import MODEL, settings_for
from embedding_pipeline_tests.fake_openai.replies import expected_vector
from embedding_pipeline_tests.fake_openai.server import FakeOpenAI, listening

pytestmark = pytest.mark.anyio


def _nasty() -> list[str]:
    dice = random.Random(7)
    blob = base64.b64encode(dice.randbytes(6_000)).decode()
    return [
        "中文字符" * 900,
        "こんにちは世界" * 300,
        "مرحبا بالعالم " * 400,
        "👩‍👩‍👧‍👦🏳️‍🌈" * 300,
        blob,
        "def f(x):\n\treturn {'a': [x, *range(10)]}\n" * 300,
        "<|endoftext|> and <|im_start|> are plain text here",
        "\u202eright to left\u202c \ufeff zero\u200bwidth",
        "a\x00b",
        "0123456789" * 800,
        "\n\t x",
        "'; DROP TABLE vectors; --",
        "x" * 30_000,
        "é" * 6_000,
    ]


LONG = "All work and no play makes Jack a dull boy. 働かざる者食うべからず。" * 1500  # over 100 kB
BLANK = ["", "   ", "\n\t\u3000"]


async def _run(
    folder: Path, texts: list[str], oversize: str
) -> tuple[Outcome, FakeOpenAI, Settings]:
    async with listening(FakeOpenAI()) as fake:
        settings = settings_for(folder, fake.base_url, requests={"oversize": oversize})
        prepare(settings, texts)
        return await run(settings), fake, settings


async def test_reject_quarantines_what_is_blank_or_too_long_and_sends_the_rest(
    tmp_path: Path,
) -> None:
    texts = [*_nasty(), *BLANK, LONG]
    outcome, fake, _ = await _run(tmp_path, texts, "reject")
    assert_right(outcome, texts)
    first = len(_nasty())
    expected = dict.fromkeys(range(first, first + 3), "blank") | {first + 3: "too_long"}
    assert outcome.held == expected
    assert fake.books.statuses == {"200": fake.books.requests}


async def test_truncate_embeds_the_longest_prefix_and_says_so(tmp_path: Path) -> None:
    texts = ["short", LONG]
    outcome, fake, settings = await _run(tmp_path, texts, "truncate")
    assert outcome.held == {}
    prefix = default_counter().truncate(LONG, 8192)
    prefix = prefix.encode()[: 4 * 8192].decode(errors="ignore")
    assert np.array_equal(outcome.vectors[1], expected_vector(MODEL, prefix, 1536))
    assert _derived(settings) == {"00000001": ("truncated", 1)}
    assert fake.books.statuses == {"200": fake.books.requests}


async def test_split_mean_is_the_weighted_mean_of_the_parts_and_says_so(tmp_path: Path) -> None:
    texts = [LONG, "short"]
    outcome, fake, settings = await _run(tmp_path, texts, "split_mean")
    (chunk, (method, parts)) = next(iter(_derived(settings).items()))
    assert (chunk, method) == ("00000000", "split_mean")
    assert parts > 2
    assert outcome.vectors[0] == pytest.approx(_mean_of_parts(LONG), abs=1e-6)
    assert np.array_equal(outcome.vectors[1], expected_vector(MODEL, "short", 1536))
    assert fake.books.statuses == {"200": fake.books.requests}


def _mean_of_parts(text: str) -> np.ndarray:
    """By the definition: consecutive parts of at most 8,192 tokens under both counts."""
    counter, mean, rest = default_counter(), np.zeros(1536), text
    while rest:
        part = counter.truncate(rest, 8192).encode()[: 4 * 8192].decode(errors="ignore")
        mean += int(counter.count([part])[0]) * expected_vector(MODEL, part, 1536).astype(float)
        rest = rest[len(part) :]
    return mean / np.linalg.norm(mean)


def _derived(settings: Settings) -> dict[str, tuple[str, int]]:
    file = build_datasets(settings).derived_chunks(settings.model_spec.space, DAY)
    return {
        row["chunk_id"]: (row["method"], row["parts"])
        for batch in file.iter_batches()
        for row in batch.to_pylist()
    }


async def test_the_big_list_of_naughty_strings(shared_data: Path, tmp_path: Path) -> None:
    import gzip

    with gzip.open(shared_data / "nasty" / "strings.jsonl.gz", "rt") as file:
        rows = [json.loads(line)["text"] for line in file]
    texts = [row for row in rows if _is_utf8(row)]
    outcome, fake, _ = await _run(tmp_path, texts, "reject")
    assert_right(outcome, texts)
    assert outcome.error is None
    assert set(outcome.held.values()) <= {"blank"}
    assert fake.books.statuses == {"200": fake.books.requests}


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
