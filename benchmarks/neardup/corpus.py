"""Chunks of about 200 tokens, three in ten of them edited copies, with the truth beside them.

Belongs here: making them, the same every time. Does not belong here: finding the copies.
"""

import csv
import random
import re
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import pyarrow as pa

from embedding_pipeline.records import RAW_CHUNKS, content_hash
from embedding_pipeline.vectors.datasets import Datasets

WORDS = 150
SHINGLE = 5
COPIES = 0.3
BATCH = 1000


def make(datasets: Datasets, day: str, count: int, truth: Path) -> None:
    """Write ``raw_chunks`` of a day, and each copy with its original and their similarity."""
    rng = random.Random(count)
    vocabulary = sorted(set(re.findall(r"[a-z]{2,12}", " ".join(topics.values()).lower())))
    recent: list[tuple[str, list[str]]] = []
    with datasets.raw_chunks(day).writer() as writer, truth.open("w", newline="") as file:
        table = csv.writer(file)
        for start in range(0, count, BATCH):
            texts = list(_texts(rng, vocabulary, recent, range(start, min(start + BATCH, count))))
            for name, _, original, similarity in texts:
                if original:
                    table.writerow([name, original, f"{similarity:.6f}"])
            writer.write(_batch([(name, text) for name, text, _, _ in texts]))


def _texts(
    rng: random.Random,
    vocabulary: list[str],
    recent: list[tuple[str, list[str]]],
    numbers: range,
) -> Iterator[tuple[str, str, str, float]]:
    for number in numbers:
        name = f"{number:08}"
        if recent and rng.random() < COPIES:
            original, words = rng.choice(recent)
            copy = _edited(rng, vocabulary, words)
            yield name, " ".join(copy), original, jaccard(words, copy)
            continue
        words = rng.choices(vocabulary, k=rng.randint(WORDS - 40, WORDS + 40))
        recent.append((name, words))
        del recent[:-5000]
        yield name, " ".join(words), "", 0.0


def _edited(rng: random.Random, vocabulary: list[str], words: list[str]) -> list[str]:
    """A copy with up to six words replaced: similarities from about 0.65 to 1."""
    copy = list(words)
    for _ in range(rng.randint(0, 6)):
        copy[rng.randrange(len(copy))] = rng.choice(vocabulary)
    return copy


def jaccard(one: list[str], other: list[str]) -> float:
    """Exact similarity of two texts by their word 5-grams."""
    sets = [{tuple(w[n : n + SHINGLE]) for n in range(len(w) - SHINGLE + 1)} for w in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def _batch(rows: list[tuple[str, str]]) -> pa.RecordBatch:
    names, texts = [name for name, _ in rows], [text for _, text in rows]
    size = len(rows)
    columns: list[object] = [
        names,
        names,
        [0] * size,
        texts,
        [content_hash(text) for text in texts],
        [200] * size,
        ["p"] * size,
        [None] * size,
        ["{}"] * size,
    ]
    arrays = [
        pa.array(column, field.type) for column, field in zip(columns, RAW_CHUNKS, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=RAW_CHUNKS)
