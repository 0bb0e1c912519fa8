"""Texts that share a long disclaimer: many candidates of each other, few copies."""

import random

import numpy as np
import pytest

from embedding_pipeline.dedup import leading
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.dedup.leading import lead
from embedding_pipeline.dedup.shingles import jaccard, shingles_of
from embedding_pipeline_tests.dedup.windows import groups_of
from embedding_pipeline_tests.vectors.building import Chunk

COUNT = 150


@pytest.fixture(scope="module")
def mails() -> list[str]:
    """Every third is a copy of the one before it with another first word."""
    rng = random.Random(1)
    words = [f"word{number}" for number in range(5000)]
    disclaimer = rng.choices(words, k=100)
    texts: list[str] = []
    for number in range(COUNT):
        own = rng.choices(words, k=25)
        copy = ["changed", *texts[-1].split(" ")[1:]] if number % 3 == 2 else [*own, *disclaimer]
        texts.append(" ".join(copy))
    return texts


def test_copies_are_found_among_the_many(mails: list[str]) -> None:
    chunks = [Chunk(f"{number:03}", text) for number, text in enumerate(mails)]
    groups = groups_of({"2025-01-01": chunks}, DedupConfig(threshold=0.9), 50)
    expected = [number - (number % 3 == 2) for number in range(COUNT)]
    assert groups.representative.tolist() == expected


def test_few_are_compared_exactly(mails: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[float] = []

    def counted(one: frozenset[int], other: frozenset[int]) -> float:
        compared.append(jaccard(one, other))
        return compared[-1]

    monkeypatch.setattr(leading, "jaccard", counted)
    keys = np.ones((COUNT, 1), np.uint64)
    found = lead(keys, shingles_of(mails), 0.9)
    assert [one.row for one in found] == list(range(2, COUNT, 3))
    assert len(compared) < 10 * COUNT < COUNT * COUNT / 4
