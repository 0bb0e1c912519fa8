"""The checks on ``embeddings``: green on good data, red on every kind of damage."""

import shutil
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.pipeline import checks
from embedding_pipeline.pipeline.reports import CheckVerdict
from embedding_pipeline.records import content_hash
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.provenance import Provenance
from embedding_pipeline_tests.vectors.building import (
    DAY,
    NEXT,
    OTHER,
    SPACE,
    Chunk,
    Copy,
    vectors_of,
    write_day,
    write_deduped,
    write_embeddings,
    write_raw,
)

CHUNKS = [Chunk("a", "one"), Chunk("b", "two"), Chunk("c", "ONE"), Chunk("d", "one")]
COPIES = [Copy("c", "a", "normalized"), Copy("d", "a")]
REMEDY = f"embedding-pipeline backfill --start {DAY} --end {DAY}"
NAMES = [
    "vector_dimension",
    "vectors_are_finite_unit_norm",
    "single_space",
    "every_chunk_accounted_for",
]


@pytest.fixture
def good(datasets: Datasets) -> Datasets:
    """A day in which everything is right."""
    write_day(datasets, DAY, CHUNKS, COPIES)
    return datasets


def judge(datasets: Datasets, dimensions: int = 8) -> dict[str, CheckVerdict]:
    return checks.all_checks(datasets, SPACE, dimensions, DAY)


def failed(datasets: Datasets, dimensions: int = 8) -> set[str]:
    verdicts = judge(datasets, dimensions)
    assert all(verdict.passed or REMEDY in verdict.description for verdict in verdicts.values())
    return {name for name, verdict in verdicts.items() if not verdict.passed}


def account(datasets: Datasets, **held: set[str]) -> CheckVerdict:
    sets = (held.get(what, set()) for what in ("quarantined", "deferred"))
    return checks.every_chunk_accounted_for(datasets, SPACE, DAY, *sets)


def counts(verdict: CheckVerdict) -> dict[str, object]:
    """The figures that are not zero."""
    return {name: value for name, value in verdict.metadata.items() if value}


def embed(datasets: Datasets, *chunks: Chunk) -> None:
    write_embeddings(datasets, DAY, chunks)


def test_good_data_passes_every_check_in_order(good: Datasets) -> None:
    verdicts = judge(good)
    assert list(verdicts) == NAMES
    assert all(verdict.passed and verdict.blocking for verdict in verdicts.values())
    assert verdicts["every_chunk_accounted_for"].metadata == {
        "chunks_in": 4,
        "embedded": 2,
        "duplicate": 2,
        "quarantined": 0,
        "deferred": 0,
        "missing": 0,
        "unexpected": 0,
    }


def test_an_empty_day_passes(datasets: Datasets) -> None:
    write_day(datasets, DAY, [])
    assert failed(datasets) == set()


def test_a_view_passes_at_its_own_dimensions_only(good: Datasets) -> None:
    write_embeddings(good, DAY, CHUNKS[:2], vectors=vectors_of(["one", "two"], 4))
    assert failed(good, dimensions=4) == set()
    assert "vector_dimension" in failed(good, dimensions=8)


def test_a_missing_file_fails_every_check_and_says_what_to_do(good: Datasets) -> None:
    good.embeddings(SPACE, DAY).path.unlink()
    assert failed(good) == set(NAMES)


@pytest.mark.parametrize("dataset", ["raw_chunks", "duplicate_chunks"])
def test_a_missing_list_fails_the_account(good: Datasets, dataset: str) -> None:
    (good.root / dataset / f"{DAY}.parquet").unlink()
    assert failed(good) == {"every_chunk_accounted_for"}


def test_a_damaged_file_fails_in_words(good: Datasets) -> None:
    path = good.embeddings(SPACE, DAY).path
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2 :] = bytes(len(whole) - len(whole) // 2)
    path.write_bytes(whole)
    assert failed(good) == set(NAMES)


def test_a_flipped_bit_in_a_vector_is_found(good: Datasets) -> None:
    path = good.embeddings(SPACE, DAY).path
    whole = path.read_bytes()
    needle = vectors_of(["one", "two"]).tobytes()
    assert needle in whole
    path.write_bytes(whole.replace(needle, b"\x01" + needle[1:]))
    assert "vectors_are_finite_unit_norm" in failed(good)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 3e38])
def test_a_component_that_is_no_number_fails_the_norm_check(good: Datasets, value: float) -> None:
    vectors = vectors_of(["one", "two"])
    vectors[1] = value
    write_embeddings(good, DAY, CHUNKS[:2], vectors=vectors)
    assert failed(good) == {"vectors_are_finite_unit_norm"}
    verdict = judge(good)["vectors_are_finite_unit_norm"]
    assert "1 of 2 vectors" in verdict.description
    assert "(b)" in verdict.description
    assert verdict.metadata["not_unit_or_finite"] == 1


def test_rounding_to_float16_is_within_the_tolerance(good: Datasets) -> None:
    rounded = vectors_of(["one", "two"]).astype(np.float16).astype(np.float32)
    write_embeddings(good, DAY, CHUNKS[:2], vectors=rounded)
    assert failed(good) == set()


def test_a_length_a_little_off_is_outside(good: Datasets) -> None:
    write_embeddings(good, DAY, CHUNKS[:2], vectors=vectors_of(["one", "two"]) * 1.01)
    assert failed(good) == {"vectors_are_finite_unit_norm"}


def test_a_verdict_names_ten_ids_at_most(datasets: Datasets) -> None:
    chunks = [Chunk(f"c{n:04d}", f"text {n}") for n in range(3000)]
    write_day(datasets, DAY, chunks)
    write_embeddings(datasets, DAY, chunks, vectors=np.zeros((3000, 8), np.float32))
    description = judge(datasets)["vectors_are_finite_unit_norm"].description
    assert "c0009 and 2990 more" in description
    assert "c0010" not in description


def rewrite(datasets: Datasets, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the vectors behind the writer's back; the file's own word stays as it is."""
    path = datasets.embeddings(SPACE, DAY).path
    table = pq.read_table(path)
    metadata = {**Provenance(SPACE, 8).to_metadata()}
    pq.write_table(change(table).replace_schema_metadata(metadata), path)


def with_vectors(kind: pa.DataType) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        lists = [row[:4] for row in table["vector"].to_pylist()]
        return table.set_column(4, "vector", pa.array(lists, kind))

    return change


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), 4), pa.list_(pa.float32())])
def test_vectors_of_another_length_fail(good: Datasets, kind: pa.DataType) -> None:
    rewrite(good, with_vectors(kind))
    assert failed(good) == set(NAMES)


def test_one_null_vector_fails(good: Datasets) -> None:
    def change(table: pa.Table) -> pa.Table:
        kind = table.schema.field("vector").type
        lists = [table["vector"][0].as_py(), None]
        return table.set_column(4, "vector", pa.array(lists, kind))

    rewrite(good, change)
    assert "vectors_are_finite_unit_norm" in failed(good)


def test_another_spaces_file_in_this_folder_fails(good: Datasets) -> None:
    write_embeddings(good, DAY, CHUNKS[:2], space=OTHER)
    shutil.copy(good.embeddings(OTHER, DAY).path, good.embeddings(SPACE, DAY).path)
    assert "single_space" in failed(good)
    verdict = judge(good)["single_space"]
    assert "holds vectors of local/other@8, not of local/tiny@8" in verdict.description


def test_a_file_without_its_record_fails(good: Datasets) -> None:
    path = good.embeddings(SPACE, DAY).path
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    assert failed(good) == set(NAMES)


def test_a_dropped_row_is_missing_by_name_and_so_are_its_copies(good: Datasets) -> None:
    embed(good, CHUNKS[1])
    verdict = account(good)
    assert not verdict.passed
    assert counts(verdict) == {
        "chunks_in": 4,
        "embedded": 1,
        "missing": 3,
        "examples": "a, c, d",
    }
    assert REMEDY in verdict.description


@pytest.mark.parametrize("name", [content_hash("one"), "a"], ids=["by hash", "by id"])
@pytest.mark.parametrize("state", ["quarantined", "deferred"])
def test_a_dropped_row_may_be_explained(good: Datasets, state: str, name: str) -> None:
    embed(good, CHUNKS[1])
    verdict = account(good, **{state: {name}})
    assert verdict.passed == (state == "quarantined")
    assert verdict.blocking == verdict.passed  # deferred is a warning: it comes with a later run
    expected = {"chunks_in": 4, "embedded": 1, "duplicate": 2, state: 1}
    assert counts(verdict) == expected


def test_quarantine_comes_before_deferral_and_is_counted_once(good: Datasets) -> None:
    embed(good, CHUNKS[1])
    verdict = account(good, quarantined={"a"}, deferred={"a", content_hash("one")})
    assert counts(verdict) == {"chunks_in": 4, "embedded": 1, "duplicate": 2, "quarantined": 1}


def test_an_explanation_for_something_else_explains_nothing(good: Datasets) -> None:
    embed(good, CHUNKS[1])
    assert not account(good, quarantined={content_hash("ONE")}, deferred={"b"}).passed


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (Chunk("stranger", "x"), {"embedded": 2, "duplicate": 2, "examples": "stranger"}),
        (CHUNKS[1], {"embedded": 1, "duplicate": 2, "examples": "b"}),
        (CHUNKS[2], {"embedded": 2, "duplicate": 1, "examples": "c"}),
    ],
    ids=["of no chunk", "twice", "of a duplicate"],
)
def test_a_vector_too_many_is_unexpected(
    good: Datasets, extra: Chunk, expected: dict[str, object]
) -> None:
    embed(good, *CHUNKS[:2], extra)
    verdict = account(good)
    assert not verdict.passed
    assert counts(verdict) == {"chunks_in": 4, "unexpected": 1, **expected}


def test_a_vector_of_an_earlier_text_is_not_the_chunks_vector(good: Datasets) -> None:
    changed = [CHUNKS[0], replace(CHUNKS[1], text="two, corrected"), *CHUNKS[2:]]
    write_raw(good, DAY, changed)
    verdict = account(good)
    assert not verdict.passed
    assert verdict.metadata["missing"] == verdict.metadata["unexpected"] == 1
    assert verdict.metadata["examples"] == "b, b"


def test_an_exact_copy_whose_text_changed_is_missing(good: Datasets) -> None:
    write_raw(good, DAY, [*CHUNKS[:3], replace(CHUNKS[3], text="something new")])
    verdict = account(good)
    assert not verdict.passed
    assert counts(verdict) == {
        "chunks_in": 4,
        "embedded": 2,
        "duplicate": 1,
        "missing": 1,
        "examples": "d",
    }


@pytest.mark.parametrize(
    ("copies", "missing", "unexpected"),
    [
        ([COPIES[0]], 1, 0),
        ([COPIES[0], Copy("d", "nobody")], 1, 0),
        ([COPIES[0], Copy("d", "c", "normalized")], 1, 0),
        ([*COPIES, Copy("stranger", "a")], 0, 1),
        ([*COPIES, COPIES[1]], 0, 1),
    ],
    ids=["unlisted", "of nobody", "of a duplicate", "of no chunk", "twice"],
)
def test_a_wrong_list_of_duplicates_fails(
    good: Datasets, copies: list[Copy], missing: int, unexpected: int
) -> None:
    write_deduped(good, DAY, CHUNKS[:2], copies)
    verdict = account(good)
    assert not verdict.passed
    assert verdict.metadata["missing"] == missing
    assert verdict.metadata["unexpected"] == unexpected


def test_an_id_twice_in_the_raw_chunks_is_unexpected(good: Datasets) -> None:
    write_raw(good, DAY, [*CHUNKS, CHUNKS[1]])
    verdict = account(good)
    assert not verdict.passed
    assert verdict.metadata["unexpected"] == 1


def test_a_representative_on_another_day_is_looked_up_there(datasets: Datasets) -> None:
    write_day(datasets, NEXT, [Chunk("r", "one")])
    write_day(datasets, DAY, CHUNKS[:2], [Copy("a", "r", "exact", NEXT)])
    assert counts(account(datasets)) == {"chunks_in": 2, "embedded": 1, "duplicate": 1}
    write_embeddings(datasets, NEXT, [])
    assert not account(datasets).passed
    assert account(datasets, deferred={content_hash("one")}).passed


FATES = st.sampled_from(["embedded", "duplicate", "quarantined", "deferred"])


@settings(max_examples=40)
@given(st.lists(FATES), st.lists(st.integers(0, 30), max_size=3))
def test_the_account_is_exact(
    tmp_path_factory: pytest.TempPathFactory, fates: list[str], lost: list[int]
) -> None:
    """Chunk 0 is embedded and represents; any others lost must be missing by name."""
    datasets = Datasets(tmp_path_factory.mktemp("data"))
    fates = ["embedded", *fates]
    gone = {n for n in lost if 0 < n < len(fates)}
    chunks = [
        Chunk(f"c{n:02d}", "same" if fate == "duplicate" or n == 0 else f"text {n}")
        for n, fate in enumerate(fates)
    ]

    def having(fate: str) -> list[Chunk]:
        return [c for n, c in enumerate(chunks) if fates[n] == fate and n not in gone]

    write_raw(datasets, DAY, chunks)
    copies = [Copy(chunk.chunk_id, "c00") for chunk in having("duplicate")]
    write_deduped(datasets, DAY, [], copies)
    embed(datasets, *having("embedded"))
    verdict = account(
        datasets,
        quarantined={content_hash(chunk.text) for chunk in having("quarantined")},
        deferred={chunk.chunk_id for chunk in having("deferred")},
    )
    expected = {fate: len(having(fate)) for fate in set(fates) if having(fate)}
    if gone:
        expected["missing"] = len(gone)
    found = counts(verdict)
    assert found.pop("examples", "") == ", ".join(chunks[n].chunk_id for n in sorted(gone))
    assert found == {"chunks_in": len(fates), **expected}
    assert verdict.passed == (not gone and not having("deferred"))
