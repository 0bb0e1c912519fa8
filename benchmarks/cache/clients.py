"""Each cache's way of storing and finding vectors in bulk, as its own code does it.

Belongs here: one class a cache and backend: ``put`` and ``get`` of a thousand texts. A peer
is handed its vectors as the lists that it stores, and may return what it likes.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

MODEL = "text-embedding-3-small"
WIDTH = 1536


class Cache(Protocol):
    """What is measured."""

    def put(self, texts: Sequence[str], vectors: Any) -> None: ...

    def get(self, texts: Sequence[str]) -> int:
        """How many were found."""


class Ours:
    """The durable tier (SQLite or PostgreSQL) or the Redis tier."""

    def __init__(self, place: str) -> None:
        from embedding_pipeline.cache import database
        from embedding_pipeline.cache.durable import DurableTier
        from embedding_pipeline.clock import SystemClock
        from embedding_pipeline.records import Space
        from embedding_pipeline.state.store import Store

        self._loop = asyncio.new_event_loop()
        self._space = Space("openai", MODEL, "", WIDTH)
        self._entry = 0
        if place.startswith("redis"):
            from embedding_pipeline.cache.redis import RedisTier, redis_client

            self._store, self._number = None, 0
            client = self._run_in_loop(lambda: redis_client(place))
            self._tier: Any = RedisTier(client, "bench", self._space, "float32", 86_400)
            return
        url = place if "://" in place else f"sqlite:///{Path(place) / 'state.db'}"
        self._store = Store(url, SystemClock())
        self._number = self._run(self._store.write(lambda c: database.space_id(c, self._space)))
        self._tier = DurableTier(self._store, self._number, self._space)

    def put(self, texts: Sequence[str], vectors: Any) -> None:
        from embedding_pipeline.cache import database
        from embedding_pipeline.records import digest_of

        digests = [digest_of(text) for text in texts]
        if self._store is None:
            self._run(self._tier.put_many(digests, vectors))
            return
        self._entry += 1
        paid = [self._entry] * len(digests)
        self._run(
            self._store.write(
                lambda c: database.put_many(
                    c, self._number, self._space, digests, vectors, paid, dtype="float32"
                )
            )
        )

    def get(self, texts: Sequence[str]) -> int:
        from embedding_pipeline.records import digest_of

        found = self._run(self._tier.get_many([digest_of(text) for text in texts]))
        return int(found.found.sum())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(work)

    def _run_in_loop(self, work: Callable[[], Any]) -> Any:
        async def call() -> Any:
            return work()

        return self._run(call())


class LangChain:
    """``CacheBackedEmbeddings`` over a file, Redis or SQL store."""

    def __init__(self, place: str, kind: str) -> None:
        from langchain_classic.embeddings import CacheBackedEmbeddings
        from langchain_core.embeddings import Embeddings

        class Nobody(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                raise AssertionError(f"{len(texts)} texts were not in the cache")

            def embed_query(self, text: str) -> list[float]:
                raise AssertionError(text)

        self._cache = CacheBackedEmbeddings.from_bytes_store(
            Nobody(), _langchain_store(place, kind), namespace=MODEL, key_encoder="sha256"
        )

    def put(self, texts: Sequence[str], vectors: Any) -> None:
        self._cache.document_embedding_store.mset(list(zip(texts, vectors, strict=True)))

    def get(self, texts: Sequence[str]) -> int:
        return len(self._cache.embed_documents(list(texts)))


def _langchain_store(place: str, kind: str) -> Any:
    if kind == "files":
        from langchain_classic.storage import LocalFileStore

        return LocalFileStore(place)
    if kind == "redis":
        from langchain_community.storage import RedisStore

        return RedisStore(redis_url=place)
    from langchain_community.storage import SQLStore

    url = place if "://" in place else f"sqlite:///{Path(place) / 'store.db'}"
    store = SQLStore(namespace=MODEL, db_url=url)
    store.create_schema()
    return store


class LiteLLM:
    """``litellm.Cache`` on disk or in Redis, called as its embedding handler calls it."""

    def __init__(self, place: str, kind: str) -> None:
        import litellm

        self._loop = asyncio.new_event_loop()
        if kind == "disk":
            self._cache = litellm.Cache(type="disk", disk_cache_dir=place)
        else:
            host, port = place.removeprefix("redis://").split(":")
            self._cache = litellm.Cache(type="redis", host=host, port=port)
        self._cache.mode = "default_on"

    def put(self, texts: Sequence[str], vectors: Any) -> None:
        from litellm import EmbeddingResponse
        from litellm.types.utils import Embedding

        data = [
            Embedding(embedding=vector, index=row, object="embedding")
            for row, vector in enumerate(vectors)
        ]
        reply = EmbeddingResponse(model=MODEL, data=data)
        call = self._cache.async_add_cache_pipeline(reply, model=MODEL, input=list(texts))
        self._loop.run_until_complete(call)

    def get(self, texts: Sequence[str]) -> int:
        async def ask() -> int:
            keys = [self._cache.get_cache_key(model=MODEL, input=text) for text in texts]
            calls = (self._cache.async_get_cache(cache_key=key) for key in keys)
            return sum(entry is not None for entry in await asyncio.gather(*calls))

        return self._loop.run_until_complete(ask())


CLIENTS: dict[str, tuple[str, bool, Callable[[str], Cache]]] = {
    "ours, SQLite": ("folder", False, Ours),
    "LangChain, files": ("folder", True, lambda place: LangChain(place, "files")),
    "LangChain, SQLite": ("folder", True, lambda place: LangChain(place, "sql")),
    "LiteLLM, disk": ("folder", True, lambda place: LiteLLM(place, "disk")),
    "ours, PostgreSQL": ("postgres", False, Ours),
    "LangChain, PostgreSQL": ("postgres", True, lambda place: LangChain(place, "sql")),
    "ours, Redis": ("redis", False, Ours),
    "LangChain, Redis": ("redis", True, lambda place: LangChain(place, "redis")),
    "LiteLLM, Redis": ("redis", True, lambda place: LiteLLM(place, "redis")),
}
"""By name: the backend, whether it lives in the peers' environment, and how it is opened."""


def vectors(count: int, first: int) -> np.ndarray:
    """Unit vectors, each its own."""
    made = np.random.default_rng(first).normal(size=(count, WIDTH)).astype(np.float32)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def texts(count: int, first: int) -> list[str]:
    """Texts of 780 characters."""
    return [
        f"{number:08d} " + "some prose to be embedded " * 30
        for number in range(first, first + count)
    ]
