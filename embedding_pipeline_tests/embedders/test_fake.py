"""The embedder for other people's tests keeps what it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.embedders.fake import FakeEmbedder, fake_vector, quarter_of_bytes

pytestmark = pytest.mark.anyio


@given(st.text(), st.integers(1, 600))
def test_vectors_are_unit_and_depend_on_nothing_else(text: str, dimensions: int) -> None:
    vector = fake_vector("m", text, dimensions)
    assert vector.dtype == np.float32
    assert vector.shape == (dimensions,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert vector.tobytes() == fake_vector("m", text, dimensions).tobytes()


@given(st.text(), st.text())
def test_texts_and_models_are_told_apart(one: str, other: str) -> None:
    same = fake_vector("m", one, 64).tobytes() == fake_vector("m", other, 64).tobytes()
    assert same == (one == other)
    assert fake_vector("m", one, 64).tobytes() != fake_vector("n", one, 64).tobytes()


def test_vectors_are_the_same_on_every_machine() -> None:
    found = fake_vector("hash", "The quick brown fox", 4)
    assert found == pytest.approx([-0.52330810, 0.52862859, 0.66703480, -0.04201225], abs=1e-7)


async def test_it_embeds_counts_and_remembers() -> None:
    async with FakeEmbedder(8, "m") as embedder:
        result = await embedder.embed(["ab", "", "日本語"])
        await embedder.embed(["ab"])
    assert result.vectors[2].tobytes() == fake_vector("m", "日本語", 8).tobytes()
    assert result.usage.input_tokens == 1 + 0 + 3
    assert embedder.requests == [("ab", "", "日本語"), ("ab",)]
    assert str(embedder.space) == "fake/m@8"


def test_a_quarter_is_rounded_up() -> None:
    assert quarter_of_bytes(["", "a", "abcd", "abcde"]).tolist() == [0, 1, 1, 2]
