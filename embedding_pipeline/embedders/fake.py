"""Vectors without a model: a function of the model's name and the text, and nothing else.

Belongs here: an embedder for the tests of those who use this project, and the function
behind it, by which a test knows the right vector of any text. The vectors say nothing
about meaning. Does not belong here: failures (the fake API server of the test suite has
those) or anything random.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.records import EmbeddingResult, Space, Usage, Vectors


def fake_vector(model: str, text: str, dimensions: int) -> npt.NDArray[np.float32]:
    """The vector of ``text``: unit norm, shape ``(dimensions,)``, the same on every machine.

    Lone surrogates are allowed, and distinct texts have distinct vectors.
    """
    seed = model.encode() + b"\0" + text.encode(errors="surrogatepass")
    raw = hashlib.shake_128(seed).digest(2 * dimensions)
    values = np.frombuffer(raw, dtype="<i2").astype(np.float64) + 0.5  # never all zero
    return (values / np.sqrt(values @ values)).astype(np.float32)


def fake_vectors(model: str, texts: Sequence[str], dimensions: int) -> Vectors:
    """``fake_vector`` of each text, shape ``(len(texts), dimensions)``."""
    vectors = np.empty((len(texts), dimensions), dtype=np.float32)
    for row, text in enumerate(texts):
        vectors[row] = fake_vector(model, text, dimensions)
    return vectors


def quarter_of_bytes(texts: Sequence[str]) -> npt.NDArray[np.int32]:
    """A token count that needs no vocabulary: UTF-8 bytes / 4, rounded up."""
    sizes = (len(text.encode(errors="surrogatepass")) for text in texts)
    return -(-np.fromiter(sizes, dtype=np.int32, count=len(texts)) // 4)


class FakeEmbedder(Embedder):
    """Never fails, never waits, never reaches a network.

    Args:
        dimensions: length of the vectors.
        model: part of what the vectors are made from; another model, other vectors.
        count: tokens of each text, for the usage.

    Attributes:
        requests: the texts of every call so far, in order.
    """

    def __init__(
        self,
        dimensions: int = 1536,
        model: str = "hash",
        count: Callable[[Sequence[str]], npt.NDArray[np.int32]] = quarter_of_bytes,
    ) -> None:
        self.space = Space("fake", model, "", dimensions)
        self.requests: list[tuple[str, ...]] = []
        self._count = count

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        self.requests.append(tuple(texts))
        space = self.space
        return EmbeddingResult(
            vectors=fake_vectors(space.model, texts, space.native_dimensions),
            usage=Usage(int(self._count(texts).sum())),
            provider="fake",
        )
