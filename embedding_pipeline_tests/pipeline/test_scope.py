"""Copies of earlier days: found in any order of work, and always with a vector."""

import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.errors import DataError
from embedding_pipeline.pipeline.checks import every_chunk_accounted_for
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks, days_before
from embedding_pipeline.pipeline.reports import CheckVerdict
from embedding_pipeline.vectors.columns import embeddings_batch
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.reader import read_vectors
from embedding_pipeline_tests.vectors.building import (
    DAY,
    NEXT,
    SPACE,
    Chunk,
    vector_of,
    vectors_of,
    write_raw,
)

THIRD, FOURTH = "2025-03-20", "2025-03-21"
DAYS = [DAY, NEXT, THIRD, FOURTH]
TEXT = "the quick brown fox jumps over a lazy dog and runs away from it all again"
WORDS = TEXT.split(" ")


def text(*edits: int) -> str:
    """A text whose words at these places are others; each edit takes some similarity."""
    return " ".join(f"x{place}" if place in edits else w for place, w in enumerate(WORDS))


A, B, C, D = text(), text(15), text(15, 0), text(15, 0, 8)
"""Each is near the one before it, and none near the one before that, at 0.6."""

NEAR = DedupConfig(threshold=0.8, scope_days=1)


def dedupe(datasets: Datasets, config: DedupConfig, *days: str) -> None:
    for day in days:
        build_deduped_chunks(datasets, config, day)


def embed(datasets: Datasets, *days: str) -> None:
    for day in days:
        with datasets.embeddings(SPACE, day).vectors_writer(run_id="", fingerprint="") as writer:
            for batch in datasets.deduped_chunks(day).iter_batches():
                texts = batch.column("text").to_pylist()
                if texts:
                    writer.write(embeddings_batch(batch, vectors_of(texts)))


def links(datasets: Datasets, day: str) -> dict[str, tuple[str, str, str]]:
    rows = [row for b in datasets.duplicate_chunks(day).iter_batches() for row in b.to_pylist()]
    return {
        row["chunk_id"]: (row["representative_date"], row["representative_id"], row["method"])
        for row in rows
    }


def read(datasets: Datasets, start: str, end: str) -> dict[str, list[float]]:
    table = read_vectors(datasets, SPACE, start, end)
    return dict(zip(table["chunk_id"].to_pylist(), table["vector"].to_pylist(), strict=True))


def verdict(datasets: Datasets, day: str) -> CheckVerdict:
    return every_chunk_accounted_for(datasets, SPACE, day)


def test_a_copy_of_the_day_before_has_its_vector(datasets: Datasets) -> None:
    write_raw(datasets, DAY, [Chunk("a", A)])
    write_raw(datasets, NEXT, [Chunk("b", B), Chunk("c", A), Chunk("d", "other words")])
    report = build_deduped_chunks(datasets, NEAR, NEXT)
    assert (report.chunks_out, report.elsewhere, report.missing_days) == (1, 2, ())
    assert links(datasets, NEXT) == {"b": (DAY, "a", "near"), "c": (DAY, "a", "exact")}
    dedupe(datasets, NEAR, DAY)
    embed(datasets, DAY, NEXT)
    vectors = read(datasets, NEXT, NEXT)
    assert vectors.keys() == {"b", "c", "d"}
    assert vectors["b"] == vectors["c"] == vector_of(A).tolist()
    assert verdict(datasets, NEXT).passed


@pytest.mark.parametrize(("scope", "out"), [(0, 1), (1, 1), (2, 0), (3, 0)])
def test_only_days_in_scope_are_looked_at(datasets: Datasets, scope: int, out: int) -> None:
    write_raw(datasets, DAY, [Chunk("a", A)])
    write_raw(datasets, NEXT, [])
    write_raw(datasets, THIRD, [Chunk("b", A)])
    config = DedupConfig(scope_days=scope)
    assert build_deduped_chunks(datasets, config, THIRD).chunks_out == out


def test_days_without_chunks_are_named_and_looked_over(datasets: Datasets) -> None:
    write_raw(datasets, THIRD, [Chunk("b", A)])
    report = build_deduped_chunks(datasets, DedupConfig(scope_days=2), THIRD)
    assert report.missing_days == (DAY, NEXT)
    assert report.chunks_out == 1


def test_a_representative_that_is_a_copy_itself_leads_on_to_the_vector(datasets: Datasets) -> None:
    for day, name, words in ((DAY, "a", A), (NEXT, "b", B), (THIRD, "c", C), (FOURTH, "d", B)):
        write_raw(datasets, day, [Chunk(name, words)])
    config = DedupConfig(threshold=0.8, scope_days=1)
    dedupe(datasets, config, *DAYS)
    assert links(datasets, NEXT) == {"b": (DAY, "a", "near")}
    assert links(datasets, THIRD) == {"c": (NEXT, "b", "near")}
    assert links(datasets, FOURTH) == {"d": (THIRD, "c", "near")}
    embed(datasets, *DAYS)
    assert read(datasets, FOURTH, FOURTH) == {"d": vector_of(A).tolist()}
    assert all(verdict(datasets, day).passed for day in DAYS)


def test_texts_are_each_chunks_own_however_far_the_vector_is(datasets: Datasets) -> None:
    for day, name, words in ((DAY, "a", A), (NEXT, "b", B), (THIRD, "c", B)):
        write_raw(datasets, day, [Chunk(name, words)])
    dedupe(datasets, NEAR, *DAYS[:3])
    embed(datasets, *DAYS[:3])
    table = read_vectors(datasets, SPACE, DAY, THIRD, with_text=True)
    assert dict(zip(table["chunk_id"].to_pylist(), table["text"].to_pylist(), strict=True)) == {
        "a": A,
        "b": B,
        "c": B,
    }


TEXTS = st.sampled_from([A, B, C, D, A.upper(), "short text", "Short  text"])
CHUNK = st.tuples(st.integers(0, 9).map(str), TEXTS, st.sampled_from("pq"))
SOME_DAYS = st.lists(
    st.lists(CHUNK, max_size=5, unique_by=lambda chunk: chunk[0]), min_size=4, max_size=4
)


@settings(max_examples=8, deadline=None)
@given(SOME_DAYS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_every_chunk_has_a_vector_whatever_order_the_days_were_made_in(
    chunks: list[list[tuple[str, str, str]]], scope: int, shuffling: random.Random
) -> None:
    config = DedupConfig(threshold=0.7, scope_days=scope)
    with tempfile.TemporaryDirectory() as folder:
        results = []
        for name, order in (("a", DAYS), ("b", shuffling.sample(DAYS, 4))):
            datasets = Datasets(Path(folder) / name)
            for day, of_day in zip(DAYS, chunks, strict=True):
                write_raw(datasets, day, [Chunk(f"{day}/{one}", *rest) for one, *rest in of_day])
            dedupe(datasets, config, *order, order[0])
            embed(datasets, *order)
            results.append([links(datasets, day) for day in DAYS])
            for day, of_day in zip(DAYS, chunks, strict=True):
                assert len(read(datasets, day, day)) == len(of_day)
                assert verdict(datasets, day).passed
            assert len(read(datasets, DAY, FOURTH)) == sum(map(len, chunks))
        assert results[0] == results[1]


def test_days_made_side_by_side_are_as_if_made_one_by_one(datasets: Datasets) -> None:
    for number, day in enumerate(DAYS):
        write_raw(datasets, day, [Chunk(f"{number}-{n}", text(n % 16)) for n in range(60)])
    dedupe(datasets, NEAR, *DAYS)
    alone = [links(datasets, day) for day in DAYS]
    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(lambda day: dedupe(datasets, NEAR, day), DAYS * 3):
            pass
    assert [links(datasets, day) for day in DAYS] == alone
    assert any(alone[1:])


# --- what is not there, or not any more ---


@pytest.fixture
def two_days(datasets: Datasets) -> Datasets:
    write_raw(datasets, DAY, [Chunk("a", A), Chunk("z", "other")])
    write_raw(datasets, NEXT, [Chunk("b", A)])
    dedupe(datasets, NEAR, DAY, NEXT)
    embed(datasets, DAY, NEXT)
    return datasets


def test_vectors_not_made_yet_are_waited_for_by_name(two_days: Datasets) -> None:
    two_days.embeddings(SPACE, DAY).remove()
    found = verdict(two_days, NEXT)
    assert not found.passed
    assert not found.blocking
    assert found.metadata["waiting"] == 1
    assert f"--start {DAY} --end {DAY}" in found.description
    with pytest.raises(DataError, match=f"--start {DAY} --end {DAY}"):
        read(two_days, NEXT, NEXT)


def test_days_not_deduplicated_yet_are_waited_for_too(two_days: Datasets) -> None:
    two_days.embeddings(SPACE, DAY).remove()
    two_days.duplicate_chunks(DAY).remove()
    assert not verdict(two_days, NEXT).blocking
    with pytest.raises(DataError, match=f"duplicate_chunks has no partition {DAY}"):
        read(two_days, NEXT, NEXT)


def test_a_representative_in_quarantine_explains_its_copies(two_days: Datasets) -> None:
    with two_days.embeddings(SPACE, DAY).vectors_writer(run_id="", fingerprint="") as writer:
        for batch in two_days.deduped_chunks(DAY).iter_batches():
            only = batch.filter(pa.array([name == "z" for name in batch["chunk_id"].to_pylist()]))
            writer.write(embeddings_batch(only, vectors_of(["other"])))
    assert read(two_days, NEXT, NEXT) == {}
    assert not verdict(two_days, NEXT).passed
    held = every_chunk_accounted_for(two_days, SPACE, NEXT, earlier={DAY: {"a"}})
    assert held.passed


def test_a_representative_that_is_gone_is_an_error_that_says_what_to_do(
    two_days: Datasets,
) -> None:
    write_raw(two_days, DAY, [Chunk("z", "other")])
    dedupe(two_days, NEAR, DAY)
    embed(two_days, DAY)
    found = verdict(two_days, NEXT)
    assert found.blocking
    assert found.metadata["missing"] == 1
    with pytest.raises(DataError, match=f"--start {NEXT} --end {NEXT}"):
        read(two_days, NEXT, NEXT)
    dedupe(two_days, NEAR, NEXT)
    embed(two_days, NEXT)
    assert read(two_days, NEXT, NEXT) == {"b": vector_of(A).tolist()}


def test_no_exact_copy_is_given_the_vector_of_another_text(two_days: Datasets) -> None:
    write_raw(two_days, DAY, [Chunk("a", "another text"), Chunk("z", "other")])
    dedupe(two_days, NEAR, DAY)
    embed(two_days, DAY)
    assert verdict(two_days, NEXT).blocking
    with pytest.raises(DataError, match="whose text is another by now"):
        read(two_days, NEXT, NEXT)


def test_the_days_before_a_day() -> None:
    assert days_before("2024-03-01", 2) == ["2024-02-28", "2024-02-29"]
    assert days_before(DAY, 0) == []
    assert date.fromisoformat(days_before(DAY, 9)[0]) == date.fromisoformat(DAY) - timedelta(9)
