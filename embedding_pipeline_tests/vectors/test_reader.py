"""Every raw chunk gets its vector: the reader against a plain model."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import content_hash
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.reader import days_between, iter_vectors, read_vectors
from embedding_pipeline_tests.vectors.building import (
    DAY,
    NEXT,
    OTHER,
    SPACE,
    Chunk,
    Copy,
    vector_of,
    vectors_of,
    write_day,
    write_deduped,
    write_embeddings,
    write_raw,
)

CHUNKS = [Chunk("a", "one"), Chunk("b", "two"), Chunk("c", "One "), Chunk("d", "one")]
COPIES = [Copy("c", "a", "normalized"), Copy("d", "a")]


@dataclass(frozen=True)
class Day:
    """Chunks in any order, which of them are copies of which, and which are refused."""

    chunks: list[Chunk]
    copies: list[Copy]
    refused: set[str]

    def write(self, datasets: Datasets) -> None:
        copies = {copy.chunk_id for copy in self.copies}
        own = [chunk for chunk in self.chunks if chunk.chunk_id not in copies]
        write_raw(datasets, DAY, self.chunks)
        write_deduped(datasets, DAY, own, self.copies)
        embedded = [chunk for chunk in own if chunk.chunk_id not in self.refused]
        write_embeddings(datasets, DAY, embedded)

    def expected(self, *, with_text: bool) -> dict[str, dict[str, object]]:
        stands_for = {copy.chunk_id: copy.representative_id for copy in self.copies}
        texts = {chunk.chunk_id: chunk.text for chunk in self.chunks}
        rows: dict[str, dict[str, object]] = {}
        for chunk in self.chunks:
            representative = stands_for.get(chunk.chunk_id, chunk.chunk_id)
            if representative not in self.refused:
                rows[chunk.chunk_id] = {
                    "chunk_id": chunk.chunk_id,
                    "document_id": f"doc-{chunk.chunk_id}",
                    "project": chunk.project,
                    "content_hash": content_hash(chunk.text),
                    "vector": vector_of(texts[representative]).tolist(),
                } | ({"text": chunk.text} if with_text else {})
        return rows


@st.composite
def days(draw: st.DrawFn) -> Day:
    day = Day([], [], set())
    methods = st.lists(st.sampled_from(["exact", "normalized"]), max_size=4)
    for number, copies in enumerate(draw(st.lists(methods, max_size=6))):
        name, project = f"r{number}", f"p{number % 2}"
        day.chunks.append(Chunk(name, f"text {number}", project))
        if draw(st.integers(0, 3)) == 0:
            day.refused.add(name)
        for copy, method in enumerate(copies):
            text = f"text {number}" if method == "exact" else f"TEXT {number} {'again ' * copy}"
            day.chunks.append(Chunk(f"{name}-{copy}", text, project))
            day.copies.append(Copy(f"{name}-{copy}", name, method))
    return Day(draw(st.permutations(day.chunks)), draw(st.permutations(day.copies)), day.refused)


@settings(max_examples=50)
@given(days(), st.booleans(), st.integers(1, 5))
def test_each_chunk_comes_once_with_its_representatives_vector(
    tmp_path_factory: pytest.TempPathFactory, day: Day, with_text: bool, batch_rows: int
) -> None:
    datasets = Datasets(tmp_path_factory.mktemp("data"))
    day.write(datasets)
    batches = list(
        iter_vectors(datasets, SPACE, DAY, DAY, with_text=with_text, batch_rows=batch_rows)
    )
    assert all(0 < batch.num_rows <= batch_rows for batch in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    expected = day.expected(with_text=with_text)
    assert len(rows) == len(expected)
    assert {row["chunk_id"]: row for row in rows} == expected


def test_without_fan_out_representatives_alone(datasets: Datasets) -> None:
    write_day(datasets, DAY, CHUNKS, COPIES)
    table = read_vectors(datasets, SPACE, DAY, DAY, fan_out=False, with_text=True)
    assert table["chunk_id"].to_pylist() == ["a", "b"]
    assert table["text"].to_pylist() == ["one", "two"]


def test_days_follow_each_other(datasets: Datasets) -> None:
    write_day(datasets, DAY, CHUNKS, COPIES)
    write_day(datasets, NEXT, [Chunk("e", "three")])
    table = read_vectors(datasets, SPACE, DAY, NEXT)
    assert table["chunk_id"].to_pylist() == ["a", "b", "c", "d", "e"]
    assert np.array_equal(
        matrix_of(table["vector"].combine_chunks()),
        vectors_of(["one", "two", "one", "one", "three"]),
    )


def test_a_representative_may_stand_on_another_day(datasets: Datasets) -> None:
    write_day(datasets, DAY, CHUNKS, COPIES)
    later = [Chunk("x", "one"), Chunk("y", "new"), Chunk("z", "ONE")]
    copies = [Copy("x", "a", "exact", DAY), Copy("z", "a", "normalized", DAY)]
    write_day(datasets, NEXT, later, copies)
    table = read_vectors(datasets, SPACE, NEXT, NEXT, with_text=True)
    found = dict(zip(table["chunk_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    assert found == {"x": "one", "y": "new", "z": "ONE"}
    vectors = dict(zip(table["chunk_id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    assert vectors["x"] == vectors["z"] == vector_of("one").tolist()


def test_smaller_dimensions_are_read_when_asked_for(datasets: Datasets) -> None:
    write_raw(datasets, DAY, CHUNKS)
    write_deduped(datasets, DAY, CHUNKS[:2], COPIES)
    write_embeddings(datasets, DAY, CHUNKS[:2], vectors=vectors_of(["one", "two"], 4))
    table = read_vectors(datasets, SPACE, DAY, DAY, dimensions=4)
    assert table.schema.field("vector").type.list_size == 4
    assert table.num_rows == 4


def test_an_empty_day_is_a_table_with_its_columns(datasets: Datasets) -> None:
    write_day(datasets, DAY, [])
    table = read_vectors(datasets, SPACE, DAY, DAY, with_text=True)
    assert table.num_rows == 0
    assert table.column_names == [
        *("chunk_id", "document_id", "project", "content_hash", "vector", "text")
    ]


def test_texts_are_found_in_any_order(datasets: Datasets) -> None:
    chunks = [Chunk(f"c{n:04d}", f"text {n}") for n in range(3000)]
    write_day(datasets, DAY, chunks)
    write_embeddings(datasets, DAY, chunks[::-1])
    table = read_vectors(datasets, SPACE, DAY, DAY, with_text=True)
    assert table["text"].to_pylist() == [chunk.text for chunk in chunks[::-1]]


def test_one_text_with_very_many_copies_still_comes_in_small_batches(datasets: Datasets) -> None:
    chunks = [Chunk(f"c{n:05d}", "the same") for n in range(5000)]
    write_day(datasets, DAY, chunks, [Copy(chunk.chunk_id, "c00000") for chunk in chunks[1:]])
    batches = list(iter_vectors(datasets, SPACE, DAY, DAY, batch_rows=512))
    assert sum(batch.num_rows for batch in batches) == 5000
    assert max(batch.num_rows for batch in batches) == 512


def test_a_vector_of_no_chunk_is_an_error_where_texts_are_wanted(datasets: Datasets) -> None:
    write_day(datasets, DAY, CHUNKS, COPIES)
    write_embeddings(datasets, DAY, [*CHUNKS[:2], Chunk("stray", "x")])
    with pytest.raises(DataError, match="'stray' for one, belong to no chunk"):
        read_vectors(datasets, SPACE, DAY, DAY, with_text=True)


def test_a_missing_day_is_told_before_anything_is_read(datasets: Datasets) -> None:
    write_day(datasets, DAY, CHUNKS, COPIES)
    with pytest.raises(DataError, match=f"embeddings has no partition {NEXT} .* --start {NEXT}"):
        iter_vectors(datasets, SPACE, DAY, NEXT)


def test_another_space_is_told_before_anything_is_read(datasets: Datasets) -> None:
    write_day(datasets, DAY, CHUNKS, COPIES)
    wrong = datasets.embeddings(OTHER, DAY).path
    wrong.parent.mkdir()
    datasets.embeddings(SPACE, DAY).path.rename(wrong)
    with pytest.raises(DataError, match="vectors of local/tiny@8"):
        iter_vectors(datasets, OTHER, DAY, DAY)


def test_a_range_holds_both_ends() -> None:
    assert days_between("2025-02-27", "2025-03-01") == ["2025-02-27", "2025-02-28", "2025-03-01"]
    assert days_between(DAY, DAY) == [DAY]


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [(NEXT, DAY, "ends .* before it starts"), ("yesterday", DAY, "not a range of days")],
)
def test_what_is_no_range_is_refused(start: str, end: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        days_between(start, end)


def test_columns_of_batches_and_table_agree(datasets: Datasets) -> None:
    write_day(datasets, DAY, CHUNKS, COPIES)
    for with_text in (False, True):
        batches = iter_vectors(datasets, SPACE, DAY, DAY, with_text=with_text)
        schemas = {batch.schema for batch in batches}
        table = read_vectors(datasets, SPACE, DAY, DAY, with_text=with_text)
        assert schemas == {pa.schema(table.schema)}


def embed_with(datasets: Datasets, embedded: list[Chunk], **counts: int) -> None:
    write_embeddings(datasets, DAY, embedded)
    file = datasets.embeddings(SPACE, DAY)
    batches = list(file.iter_batches())
    with file.vectors_writer(run_id="", fingerprint="", counts=counts) as writer:
        for batch in batches:
            writer.write(batch)


def test_deferred_chunks_are_left_out_and_said(
    datasets: Datasets, caplog: pytest.LogCaptureFixture
) -> None:
    write_day(datasets, DAY, CHUNKS[:2])
    embed_with(datasets, CHUNKS[:1], chunks=2, deferred=1)
    table = read_vectors(datasets, SPACE, DAY, DAY)
    assert table["chunk_id"].to_pylist() == ["a"]
    assert f"1 chunks of {DAY} are deferred and have no vector yet" in caplog.text


def test_a_gap_without_a_reason_is_an_error(datasets: Datasets) -> None:
    write_day(datasets, DAY, CHUNKS[:2])
    embed_with(datasets, CHUNKS[:1], chunks=3, deferred=1)
    with pytest.raises(DataError, match="1 vectors of 3 chunks, and reasons for only 1"):
        iter_vectors(datasets, SPACE, DAY, DAY)
