"""A view is the head of a vector, at unit length."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import Vectors
from embedding_pipeline.vectors.view import view


@st.composite
def unit_vectors(draw: st.DrawFn) -> Vectors:
    rows, dimensions = draw(st.integers(0, 5)), draw(st.integers(2, 40))
    noise = np.random.default_rng(draw(st.integers(0, 2**32))).standard_normal((rows, dimensions))
    scaled = noise * 10.0 ** draw(st.integers(-3, 3))
    unit: Vectors = (scaled / np.linalg.norm(scaled, axis=1, keepdims=True)).astype(np.float32)
    return unit


@given(unit_vectors(), st.data())
def test_a_view_is_the_head_at_unit_length(vectors: Vectors, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, vectors.shape[1]))
    short = view(vectors, k)
    assert short.shape == (len(vectors), k)
    assert short.dtype == np.float32
    assert np.allclose(np.linalg.norm(short, axis=1), 1, atol=1e-6)
    lengths = np.linalg.norm(vectors[:, :k], axis=1, keepdims=True)
    assert np.allclose(short * lengths, vectors[:, :k], atol=1e-6)


@given(unit_vectors(), st.data())
def test_a_view_of_a_view_is_the_smaller_view(vectors: Vectors, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, vectors.shape[1]))
    smaller = data.draw(st.integers(1, k))
    assert np.allclose(view(view(vectors, k), smaller), view(vectors, smaller), atol=1e-5)


@given(unit_vectors())
def test_at_full_length_nothing_is_touched(vectors: Vectors) -> None:
    assert view(vectors, vectors.shape[1]) is vectors


@given(unit_vectors(), st.data())
def test_the_argument_is_not_changed(vectors: Vectors, data: st.DataObject) -> None:
    before = vectors.copy()
    view(vectors, data.draw(st.integers(1, vectors.shape[1])))
    assert np.array_equal(vectors, before)


def test_a_tiny_head_still_has_its_direction() -> None:
    vectors = np.array([[3e-30, 4e-30, 1.0]], np.float32)
    assert np.allclose(view(vectors, 2), [[0.6, 0.8]])


@pytest.mark.parametrize("head", [0.0, np.nan, np.inf])
def test_a_head_without_direction_is_refused(head: float) -> None:
    vectors = np.array([[1, 0, 0], [head, 0, 1]], np.float32)
    with pytest.raises(DataError, match=r"1 vectors \(the first is row 1\)"):
        view(vectors, 2)


@pytest.mark.parametrize("dimensions", [0, -1, 4])
def test_only_dimensions_that_are_there(dimensions: int) -> None:
    with pytest.raises(DataError, match="cannot be viewed"):
        view(np.ones((1, 3), np.float32), dimensions)


def test_it_is_what_the_api_itself_returns_for_dimensions(shared_data: Path) -> None:
    pairs = _full_and_short(pq.read_table(shared_data / "openai_vectors.parquet").to_pylist())
    assert len(pairs) > 50
    for full, short in pairs:
        assert view(full, short.shape[1])[0] @ short[0] == pytest.approx(1, abs=1e-3)


def _full_and_short(rows: list[dict[str, Any]]) -> list[tuple[Vectors, Vectors]]:
    """The recorded vectors of each text at full and at fewer dimensions."""
    recorded: dict[tuple[str, str], dict[int, Vectors]] = {}
    for row in rows:
        vector = np.array([row["vector"]], np.float32)
        recorded.setdefault((row["model"], row["text"]), {})[vector.shape[1]] = vector
    several = [found for found in recorded.values() if len(found) > 1]
    return [(found[max(found)], found[min(found)]) for found in several]
