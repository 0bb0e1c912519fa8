"""A matrix and its column are the same memory."""

import numpy as np
import pyarrow as pa
import pytest

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import embeddings_schema
from embedding_pipeline.vectors.columns import embeddings_batch, matrix_of, vector_column
from embedding_pipeline_tests.vectors.building import Chunk, chunk_batch, vectors_of


def test_a_matrix_becomes_a_column_and_back_without_a_copy() -> None:
    matrix = vectors_of(["a", "b", "c"])
    back = matrix_of(vector_column(matrix))
    assert np.array_equal(back, matrix)
    assert np.shares_memory(back, matrix)


def test_a_slice_of_a_column_is_the_slice_of_the_matrix() -> None:
    matrix = vectors_of(["a", "b", "c", "d"])
    part = vector_column(matrix).slice(1, 2)
    assert np.array_equal(matrix_of(part), matrix[1:3])


@pytest.mark.parametrize(
    "matrix",
    [
        np.asfortranarray(vectors_of(["a", "b"])),
        vectors_of(["a", "b", "c", "d"])[::2],
        vectors_of(["a", "b"]).astype(np.float64),
    ],
    ids=["columns first", "every other row", "float64"],
)
def test_any_layout_keeps_its_values(matrix: np.ndarray) -> None:
    back = matrix_of(vector_column(matrix))
    assert back.dtype == np.float32
    assert np.array_equal(back, matrix.astype(np.float32))


def test_no_rows_are_a_column_of_no_rows() -> None:
    assert matrix_of(vector_column(np.empty((0, 8), np.float32))).shape == (0, 8)


@pytest.mark.parametrize("shape", [(3,), (3, 0), (1, 2, 3)])
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="must be a matrix"):
        vector_column(np.ones(shape, np.float32))


@pytest.mark.parametrize("rows", [[[1.0, 2.0], None], [[1.0, None], [1.0, 2.0]]])
def test_nulls_are_never_read_as_numbers(rows: list[list[float] | None]) -> None:
    with pytest.raises(DataError, match="nulls"):
        matrix_of(pa.array(rows, pa.list_(pa.float32(), 2)))


def test_embeddings_rows_keep_chunk_and_vector_together() -> None:
    chunks = [Chunk("c1", "one"), Chunk("c2", "two", project="q")]
    batch = embeddings_batch(chunk_batch(chunks), vectors_of(["one", "two"]))
    assert batch.schema.equals(embeddings_schema(8))
    assert batch.column("chunk_id").to_pylist() == ["c1", "c2"]
    assert batch.column("project").to_pylist() == ["p", "q"]
    assert np.array_equal(matrix_of(batch.column("vector")), vectors_of(["one", "two"]))


def test_a_vector_too_few_is_refused() -> None:
    with pytest.raises(DataError, match="2 chunks cannot take 1 vectors"):
        embeddings_batch(chunk_batch([Chunk("a", "a"), Chunk("b", "b")]), vectors_of(["a"]))
