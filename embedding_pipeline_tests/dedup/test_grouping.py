"""Who represents whom, against plain comparison of every pair."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.dedup import grouping
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline_tests.dedup.windows import groups_of, model, shingles, verdict
from embedding_pipeline_tests.vectors.building import Chunk

TEXT = "the quick brown fox jumps over a lazy dog and runs away from it all again"
WORDS = TEXT.split(" ")
CONFIG = DedupConfig(threshold=0.5)

SHORT = st.sampled_from(["one", "One", " one", "two", "TWO", "thr\u00e9e", "thre\u0301e"])
EDITED = st.builds(
    lambda edits, stop: " ".join([*_edited(edits), *WORDS[:stop]]),
    st.dictionaries(st.integers(0, len(WORDS) - 1), st.sampled_from("xy"), max_size=2),
    st.integers(0, 2),
)
CHUNKS = st.builds(
    Chunk, st.text("abc\u00e9\U0001f600-", min_size=1), EDITED | SHORT, st.sampled_from("pq")
)
DAY_OF_CHUNKS = st.lists(CHUNKS, max_size=9, unique_by=lambda chunk: chunk.chunk_id)
DAYS = st.lists(DAY_OF_CHUNKS, min_size=1, max_size=3).map(
    lambda days: {f"2025-01-{number:02}": chunks for number, chunks in enumerate(days, 1)}
)
CONFIGS = st.builds(
    DedupConfig,
    near=st.booleans(),
    threshold=st.sampled_from([0.5, 0.6, 0.8]),
    within_project=st.booleans(),
)


def _edited(edits: dict[int, str]) -> list[str]:
    return [edits.get(place, word) for place, word in enumerate(WORDS)]


@settings(max_examples=30)
@given(DAYS, CONFIGS)
def test_it_agrees_with_comparing_every_pair(
    days: dict[str, list[Chunk]], config: DedupConfig
) -> None:
    assert verdict(days, config) == model(days, config)


@settings(max_examples=30)
@given(DAYS, st.randoms(use_true_random=False), st.integers(1, 5))
def test_neither_order_nor_batches_matter(
    days: dict[str, list[Chunk]], shuffling: random.Random, batch_rows: int
) -> None:
    shuffled = {day: shuffling.sample(chunks, len(chunks)) for day, chunks in days.items()}
    assert verdict(shuffled, CONFIG, batch_rows) == verdict(days, CONFIG)


@settings(max_examples=30)
@given(DAYS)
def test_rounds_of_proof_make_no_difference(days: dict[str, list[Chunk]]) -> None:
    whole = verdict(days, CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "PROVED_AT_ONCE", 2)
        assert verdict(days, CONFIG) == whole


@settings(max_examples=30)
@given(DAYS, CONFIGS)
def test_nothing_vanishes_and_each_chunk_has_one_representative(
    days: dict[str, list[Chunk]], config: DedupConfig
) -> None:
    groups = groups_of(days, config)
    assert groups.chunks_in == len(list(days.values())[-1])
    assert groups.chunks_in == groups.chunks_out + sum(groups.duplicates.values())
    within = groups.representative[groups.representative >= groups.first] - groups.first
    assert groups.kept[within].all(), "a representative represents itself"
    assert groups.elsewhere == groups.chunks_in - len(within)


@settings(max_examples=30)
@given(DAY_OF_CHUNKS, CONFIGS)
def test_clusters_are_an_equivalence(chunks: list[Chunk], config: DedupConfig) -> None:
    representative = groups_of({"2025-01-01": chunks}, config).representative
    assert (representative[representative] == representative).all()
    assert sum(np.bincount(representative, minlength=1)) == len(chunks)


@settings(max_examples=30)
@given(DAYS)
def test_every_merge_is_proven_against_the_text_that_is_kept(
    days: dict[str, list[Chunk]],
) -> None:
    texts = {(day, chunk.chunk_id): chunk for day, chunks in days.items() for chunk in chunks}
    last = list(days)[-1]
    for name, link in verdict(days, CONFIG).items():
        own, other = texts[last, name], texts[link.representative]
        assert own.project == other.project
        if link.method == "near":
            mine, its = shingles(own.text), shingles(other.text)
            assert len(mine & its) / len(mine | its) == pytest.approx(link.similarity, abs=1e-6)
            assert link.similarity >= CONFIG.threshold
        if link.method == "exact":
            assert own.text == other.text


@settings(max_examples=30)
@given(DAY_OF_CHUNKS, CONFIGS)
def test_representatives_have_no_copies_left_among_them(
    chunks: list[Chunk], config: DedupConfig
) -> None:
    kept = groups_of({"2025-01-01": chunks}, config).kept
    rest = [chunk for chunk, keep in zip(chunks, kept, strict=True) if keep]
    assert groups_of({"2025-01-01": rest}, config).chunks_out == len(rest)


def chunks_of(*texts: str) -> Sequence[Chunk]:
    return [Chunk(str(number), text) for number, text in enumerate(texts, 1)]


def test_similarity_is_not_handed_on() -> None:
    """B is near A, and C near B but not near A: C keeps a vector of its own."""
    a = " ".join(WORDS)
    b = " ".join(_edited({len(WORDS) - 1: "x"}))
    c = " ".join(_edited({len(WORDS) - 1: "x", 0: "y"}))
    found = verdict({"2025-01-01": chunks_of(a, b, c)}, DedupConfig(threshold=0.8))
    assert {name: link.representative[1] for name, link in found.items()} == {
        "1": "1",
        "2": "1",
        "3": "3",
    }


def test_short_texts_are_only_copied_exactly() -> None:
    found = verdict({"2025-01-01": chunks_of("a b c d", "a b c e", "A b c d")}, CONFIG)
    assert [link.method for link in found.values()] == ["itself", "itself", "normalized"]


def test_the_result_explains_itself() -> None:
    day = {"2025-01-01": chunks_of("a", "A", "a", "b", " ".join(WORDS), " ".join(WORDS[:-1]))}
    groups = groups_of(day, CONFIG)
    assert groups.chunks_in == 6
    assert groups.chunks_out == 3
    assert groups.duplicates == {"exact": 1, "normalized": 1, "near": 1}
    assert groups.duplicate_ratio == pytest.approx(0.5)
    assert groups.largest(10) == [(0, 3), (4, 2)]
    assert groups.largest(1) == [(0, 3)]


def test_of_nothing_nothing_is_a_copy() -> None:
    groups = groups_of({"2025-01-01": []}, CONFIG)
    assert groups.chunks_out == 0
    assert groups.duplicate_ratio == 0
    assert groups.largest(10) == []


@settings(max_examples=20)
@given(DAYS, st.sampled_from([0.5, 0.8]))
def test_similarity_is_not_below_the_threshold_as_it_is_written(
    days: dict[str, list[Chunk]], threshold: float
) -> None:
    groups = groups_of(days, DedupConfig(threshold=threshold))
    assert (groups.similarity.astype(float) >= threshold).all()
