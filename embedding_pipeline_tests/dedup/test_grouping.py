"""Who represents whom, against a plain model with dictionaries."""

from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.dedup.grouping import Groups, group
from embedding_pipeline.dedup.keys import KeyCollector, normalized
from embedding_pipeline_tests.vectors.building import Chunk, chunk_batch

TEXTS = st.sampled_from(["one", "One", " one", "two", "TWO", "three", "thr\u00e9e", "thre\u0301e"])
CHUNKS = st.builds(Chunk, st.text("abc\u00e9\U0001f600-", min_size=1), TEXTS, st.sampled_from("pq"))
PARTITIONS = st.lists(CHUNKS, unique_by=lambda chunk: chunk.chunk_id)


def groups_of(chunks: list[Chunk], batch_rows: int = 3) -> Groups:
    collector = KeyCollector()
    for start in range(0, len(chunks), batch_rows):
        collector.add(chunk_batch(chunks[start : start + batch_rows]))
    return group(collector.keys())


def verdict(chunks: list[Chunk]) -> dict[str, tuple[str, str]]:
    """Chunk id → representative's id and how it is a copy."""
    groups = groups_of(chunks)
    return {
        chunk.chunk_id: (
            chunks[groups.representative[row]].chunk_id,
            "itself" if groups.kept[row] else "exact" if groups.exact[row] else "normalized",
        )
        for row, chunk in enumerate(chunks)
    }


def model(chunks: list[Chunk]) -> dict[str, tuple[str, str]]:
    result: dict[str, tuple[str, str]] = {}

    def same(chunk: Chunk) -> tuple[str, str]:
        return chunk.project, normalized(chunk.text)

    for _, members in groupby(sorted(chunks, key=same), same):
        group = list(members)
        best = min(group, key=lambda chunk: chunk.chunk_id)
        for chunk in group:
            how = "exact" if chunk.text == best.text else "normalized"
            result[chunk.chunk_id] = (best.chunk_id, "itself" if chunk is best else how)
    return result


@given(PARTITIONS)
def test_it_agrees_with_the_model(chunks: list[Chunk]) -> None:
    assert verdict(chunks) == model(chunks)


@given(PARTITIONS, st.randoms(use_true_random=False))
def test_the_order_of_chunks_does_not_matter(chunks: list[Chunk], random: object) -> None:
    shuffled = list(chunks)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert verdict(shuffled) == verdict(chunks)


@given(PARTITIONS)
def test_nothing_vanishes(chunks: list[Chunk]) -> None:
    groups = groups_of(chunks)
    assert groups.chunks_in == len(chunks)
    assert groups.chunks_in == groups.chunks_out + sum(groups.duplicates.values())
    assert groups.kept[groups.representative].all()
    assert len(np.unique(groups.representative)) == groups.chunks_out


@given(PARTITIONS)
def test_a_tenants_text_never_stands_for_anothers(chunks: list[Chunk]) -> None:
    projects = {chunk.chunk_id: chunk.project for chunk in chunks}
    assert all(projects[name] == projects[other] for name, (other, _) in verdict(chunks).items())


@given(PARTITIONS)
def test_representatives_have_no_copies_left_among_them(chunks: list[Chunk]) -> None:
    groups = groups_of(chunks)
    kept = [chunk for chunk, keep in zip(chunks, groups.kept, strict=True) if keep]
    assert groups_of(kept).chunks_out == len(kept)


def test_the_result_explains_itself() -> None:
    groups = groups_of([Chunk("1", "a"), Chunk("2", "A"), Chunk("3", "a"), Chunk("4", "b")])
    assert groups.chunks_in == 4
    assert groups.chunks_out == 2
    assert groups.duplicates == {"exact": 1, "normalized": 1}
    assert groups.duplicate_ratio == pytest.approx(0.5)


def test_of_nothing_nothing_is_a_copy() -> None:
    groups = groups_of([])
    assert groups.chunks_out == 0
    assert groups.duplicate_ratio == 0
