"""The bundled model: right, steady, and never a NaN, whatever the text."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from embedding_pipeline.embedders import local
from embedding_pipeline.embedders.local import LocalEmbedder
from embedding_pipeline.errors import ConfigurationError, InputRefused, ServiceClosed
from embedding_pipeline.records import Vectors
from embedding_pipeline.tokens import default_counter

pytestmark = pytest.mark.anyio

NASTY = [
    "",
    " ",
    "\n\n\t",
    "\0",
    "a\0b",
    "🧠👩‍👩‍👧‍👦" * 20,
    "中" * 500,
    "ﷺ" * 100,
    "\u202eright to left\u202c \u200b\ufeff",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢",
    "<|endoftext|>",
    "' OR 1=1 -- ../../etc/passwd",
    "0" * 5000,
    "\U0010ffff\ue000\uffff",
    "é" + "e\u0301",
    "word " * 4000,
    "spaces" + " " * 100_000,
]


def embedder(threads: int | None = None) -> LocalEmbedder:
    return LocalEmbedder(default_counter().count, threads=threads)


async def vectors_of(*texts: str) -> Vectors:
    async with embedder() as model:
        return (await model.embed(texts)).vectors


async def test_every_text_has_a_unit_vector() -> None:
    vectors = await vectors_of(*NASTY)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(NASTY), 512)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


async def test_meaning_is_near() -> None:
    cat, kitten, tax, chat = await vectors_of(
        "The cat sleeps on the sofa.",
        "A kitten is napping on the couch.",
        "Quarterly tax returns are due in April.",
        "Le chat dort sur le canapé.",
    )
    assert cat @ kitten > 0.5 > cat @ tax
    assert cat @ chat > 0.5


async def test_neighbours_and_threads_do_not_matter() -> None:
    texts = [
        f"{word} is a word, and number {i} of some." * (i % 7 + 1)
        for i, word in enumerate("abcdefghij" * 6)
    ]
    async with embedder(threads=1) as one, embedder(threads=2) as two:
        together = (await two.embed(texts)).vectors
        backwards = (await one.embed(texts[::-1])).vectors[::-1]
        alone = [(await one.embed([text])).vectors[0] for text in texts[:5]]
    assert np.abs(together - backwards).max() < 1e-6
    assert np.abs(together[:5] - alone).max() < 1e-6


async def test_the_usage_is_in_tokens_of_cl100k() -> None:
    async with embedder() as model:
        result = await model.embed(["hello world", "tokens"])
    assert (result.usage.input_tokens, result.provider, result.requests) == (3, "local", 1)


@pytest.mark.parametrize(
    ("bad", "code"),
    [("word " * 20_000, "too_long"), ("\ud800", "not_utf8"), ("x" * 99 + "\udfff", "not_utf8")],
)
async def test_what_it_does_not_take_is_named(bad: str, code: str) -> None:
    async with embedder() as model:
        with pytest.raises(InputRefused, match="input 1 ") as caught:
            await model.embed(["fine", bad, "fine"])
    assert caught.value.fault.input_index == 1
    assert caught.value.fault.code == code


async def test_an_unsound_vector_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has none that we know of; if it ever has, the text is named."""

    class Model:
        def encode(self, texts: list[str]) -> Vectors:
            vectors = np.zeros((len(texts), 512), dtype=np.float32)
            vectors[:, 0] = [np.nan if text == "bad" else 1 for text in texts]
            return vectors

    monkeypatch.setattr(local._MODEL, "_model", Model())
    async with embedder() as model:
        with pytest.raises(InputRefused, match="input 2 ") as caught:
            await model.embed(["good", "better", "bad"])
    assert caught.value.fault.input_index == 2


async def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "LOCAL_WEIGHTS_SHA256", "f" * 64)
    monkeypatch.setattr(local, "_MODEL", local._Model())
    async with embedder() as model:
        with pytest.raises(ConfigurationError, match="sha256 0db566fd…, not ffffffff…"):
            await model.embed(["a"])


async def test_blas_gets_its_threads_back() -> None:
    before = [pool["num_threads"] for pool in threadpool_info()]
    async with embedder() as model:
        await model.embed(["a"])
    assert [pool["num_threads"] for pool in threadpool_info()] == before


async def test_closed_is_closed() -> None:
    model = embedder()
    await model.aclose()
    await model.aclose()
    with pytest.raises(ServiceClosed):
        await model.embed(["a"])
