"""Recall and precision on real texts with many near-duplicates, where the data is at hand."""

import gzip
import json
import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.dedup.signing import sign, signature_schema
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline_tests.vectors.building import DAY, Chunk, chunk_batch, write_raw

Pairs = dict[tuple[str, str], float]


@pytest.fixture(scope="module")
def messages(shared_data: Path) -> list[Chunk]:
    with gzip.open(shared_data / "neardup_nova" / "docs.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    return sorted((Chunk(row["id"], row["text"]) for row in rows), key=lambda one: one.chunk_id)


@pytest.fixture(scope="module")
def alike(messages: list[Chunk]) -> Pairs:
    """Every pair that shares anything, with its exact Jaccard similarity of word 5-grams."""
    sets = {chunk.chunk_id: shingles(chunk.text) for chunk in messages}
    holders: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, own in sets.items():
        for shingle in own:
            holders[shingle].append(name)
    shared = Counter(pair for names in holders.values() for pair in combinations(names, 2))
    return {
        (one, other): count / (len(sets[one]) + len(sets[other]) - count)
        for (one, other), count in shared.items()
    }


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[n : n + 5]) for n in range(len(words) - 4)}


@pytest.mark.parametrize("threshold", [0.8, 0.9])
def test_bands_find_the_pairs_that_are_alike(
    messages: list[Chunk], alike: Pairs, threshold: float
) -> None:
    config = DedupConfig(threshold=threshold)
    batch = sign(chunk_batch(messages), config)
    bands = signature_schema(config).names[3:]
    keys = np.stack([batch.column(name).to_numpy() for name in bands], axis=1)
    row = {chunk.chunk_id: number for number, chunk in enumerate(messages)}
    wanted = [pair for pair, similarity in alike.items() if similarity >= threshold]
    found = [bool((keys[row[one]] == keys[row[other]]).any()) for one, other in wanted]
    assert len(wanted) > 1000
    assert np.mean(found) >= 0.99


@pytest.mark.parametrize(("threshold", "near"), [(0.8, 1_089), (0.9, 697)])
def test_every_merge_is_right_and_none_is_missed(
    messages: list[Chunk], alike: Pairs, tmp_path: Path, threshold: float, near: int
) -> None:
    datasets = Datasets(tmp_path)
    write_raw(datasets, DAY, messages)
    report = build_deduped_chunks(datasets, DedupConfig(threshold=threshold), DAY)
    assert report.duplicates["near"] == near
    batches = datasets.duplicate_chunks(DAY).iter_batches()
    rows = [row for batch in batches for row in batch.to_pylist() if row["method"] == "near"]
    for row in rows:
        exact = alike[row["representative_id"], row["chunk_id"]]
        assert row["similarity"] == pytest.approx(exact, abs=1e-6)
        assert exact >= threshold, "precision is 1"
    kept = {
        name
        for batch in datasets.deduped_chunks(DAY).iter_batches(["chunk_id"])
        for name in batch["chunk_id"].to_pylist()
    }
    left = [pair for pair, value in alike.items() if value >= threshold and kept.issuperset(pair)]
    assert len(left) <= 0.01 * near, "of two texts that are alike one is left out"
