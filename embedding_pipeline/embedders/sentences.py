"""Any sentence-transformers model, in this process.

Belongs here: loading and running it. Does not belong here: what its files say of it
(``local_models``), or the bundled model (``local``).

The library would cut a text that is too long without a word; here such a text is refused by
its place, by the count of the model's own tokenizer.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.local import (
    PROVIDER,
    refused,
    require_sound,
    require_utf8,
)
from embedding_pipeline.embedders.local_models import EXTRA, LocalModel
from embedding_pipeline.errors import ConfigurationError, MissingExtra, ServiceClosed
from embedding_pipeline.records import EmbeddingResult, Usage, Vectors

BATCH: Final = 32
"""Texts the model works on together."""

_LOADED: Final[dict[Path, Any]] = {}
_LOADING: Final = threading.Lock()


class SentenceEmbedder(Embedder):
    """One model. Loaded on first use, in a thread; all instances of a process share it.

    Args:
        model: which one, and what its files say.
        count: cl100k tokens of each text: the usage, as with the bundled model.
        load: makes the model from its folder.

    Raises (from ``embed``):
        ConfigurationError: its vectors are not as long as its files say.
        InputRefused: a text is too long, not UTF-8, or has no sound vector; named by index.
    Raises (from the constructor):
        MissingExtra: sentence-transformers is not installed.
    """

    def __init__(
        self,
        model: LocalModel,
        count: Callable[[Sequence[str]], npt.NDArray[np.int32]],
        load: Callable[[Path], Any] | None = None,
    ) -> None:
        if load is None and find_spec("sentence_transformers") is None:
            raise MissingExtra(f"the model {model.spec.name}", EXTRA)
        self.space = model.spec.space
        self._model = model
        self._count = count
        self._load = load or _load
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sentences")
        self._closed = False

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        if self._closed:
            raise ServiceClosed("the local model is closed; open a new one")
        if not texts:
            raise ValueError("there is nothing to embed: give at least one text")
        require_utf8(texts)
        work = partial(self._embed, list(texts))
        vectors, tokens = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        return EmbeddingResult(vectors, Usage(tokens), PROVIDER)

    async def aclose(self) -> None:
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _embed(self, texts: list[str]) -> tuple[Vectors, int]:
        model = self._loaded()
        _require_short(model, texts, self._model.spec.max_input_tokens)
        found = model.encode(
            texts,
            batch_size=BATCH,
            convert_to_numpy=True,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        vectors = np.ascontiguousarray(found, dtype=np.float32)
        self._require_length(vectors)
        require_sound(vectors)
        return vectors, int(self._count(texts).sum())

    def _loaded(self) -> Any:
        with _LOADING:
            folder = self._model.folder
            if folder not in _LOADED:
                _LOADED[folder] = self._load(folder)
            return _LOADED[folder]

    def _require_length(self, vectors: Vectors) -> None:
        if vectors.shape[1] != self.space.native_dimensions:
            raise ConfigurationError(
                f"{self._model.spec.name} makes vectors of {vectors.shape[1]} numbers, and its "
                f"files say {self.space.native_dimensions}; save it anew with sentence-transformers"
            )


def _load(folder: Path) -> Any:
    """From the folder alone: nothing is looked up elsewhere, and none of its code is run."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    return SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False)


def _require_short(model: Any, texts: Sequence[str], most: int) -> None:
    tokenizer = model.tokenizer
    if hasattr(tokenizer, "encode_batch"):  # of a static model: it takes any length
        return
    ids = tokenizer(list(texts), add_special_tokens=True, truncation=False, verbose=False)
    for index, own in enumerate(ids["input_ids"]):
        if len(own) > most:
            what = f"has {len(own)} tokens of this model, more than {most}"
            raise refused(index, "too_long", what)
