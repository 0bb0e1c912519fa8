"""Each client's way from texts to one float32 matrix, with what it does about failures itself.

Belongs here: one coroutine a client, ``Ask → vectors``, written as its own documentation shows.
All ask for the same model, in requests of ``Ask.batch`` texts and ``IN_FLIGHT`` requests at once
where that can be said. Does not belong here: anything a user would have to write around the
client; ours (``ours``).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.peers.asking import IN_FLIGHT, MODEL, Ask
from benchmarks.peers.ours import matrix, stream

Client = Callable[[Ask], Awaitable[np.ndarray]]


def _batches(ask: Ask) -> list[Sequence[str]]:
    return [ask.texts[i : i + ask.batch] for i in range(0, len(ask.texts), ask.batch)]


async def sdk(ask: Ask) -> np.ndarray:
    """The openai SDK; it keeps nothing."""
    from openai import AsyncOpenAI

    gate = asyncio.Semaphore(IN_FLIGHT)
    async with AsyncOpenAI(api_key=ask.key, base_url=ask.base_url) as client:

        async def one(batch: Sequence[str]) -> np.ndarray:
            async with gate:
                reply = await client.embeddings.create(model=MODEL, input=list(batch))
            return np.array([item.embedding for item in reply.data], np.float32)

        return np.concatenate(await asyncio.gather(*map(one, _batches(ask))))


async def langchain(ask: Ask) -> np.ndarray:
    """``CacheBackedEmbeddings`` over files: what it offers for not paying again."""
    from langchain_classic.embeddings import CacheBackedEmbeddings  # type: ignore[import-not-found]
    from langchain_classic.storage import LocalFileStore  # type: ignore[import-not-found]
    from langchain_openai import OpenAIEmbeddings  # type: ignore[import-not-found]

    model = OpenAIEmbeddings(
        model=MODEL,
        api_key=ask.key,
        base_url=ask.base_url,
        chunk_size=ask.batch,
        check_embedding_ctx_length=False,
    )
    cached = CacheBackedEmbeddings.from_bytes_store(
        model,
        LocalFileStore(ask.folder),
        namespace=MODEL,
        key_encoder="sha256",
        batch_size=ask.batch,
    )
    return np.array(await cached.aembed_documents(list(ask.texts)), np.float32)


async def llama_index(ask: Ask) -> np.ndarray:
    """LlamaIndex's OpenAIEmbedding."""
    from llama_index.embeddings.openai import OpenAIEmbedding  # type: ignore[import-not-found]

    model = OpenAIEmbedding(
        model=MODEL,
        api_key=ask.key,
        api_base=ask.base_url,
        embed_batch_size=ask.batch,
        num_workers=IN_FLIGHT,
    )
    return np.array(await model.aget_text_embedding_batch(list(ask.texts)), np.float32)


_DISKS: dict[str, Any] = {}
"""LiteLLM's caches of this process, by folder."""


async def litellm(ask: Ask) -> np.ndarray:
    """LiteLLM with its disk cache, and with its bound on spending where one is asked for."""
    import litellm as lite  # type: ignore[import-not-found]

    if ask.folder not in _DISKS:
        _DISKS[ask.folder] = lite.Cache(type="disk", disk_cache_dir=ask.folder)
    lite.cache = _DISKS[ask.folder]
    lite.max_budget = ask.budget_usd or 0.0
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(batch: Sequence[str]) -> np.ndarray:
        async with gate:
            reply = await lite.aembedding(
                model=f"openai/{MODEL}", input=list(batch), api_base=ask.base_url, api_key=ask.key
            )
        return np.array([item["embedding"] for item in reply.data], np.float32)

    return np.concatenate(await asyncio.gather(*map(one, _batches(ask))))


async def openaivec(ask: Ask) -> np.ndarray:
    """Openaivec's AsyncBatchEmbeddings."""
    from openai import AsyncOpenAI
    from openaivec import AsyncBatchEmbeddings  # type: ignore[import-not-found]

    async with AsyncOpenAI(api_key=ask.key, base_url=ask.base_url) as client:
        model = AsyncBatchEmbeddings.of(
            client, MODEL, batch_size=ask.batch, max_concurrency=IN_FLIGHT
        )
        return np.array(await model.create(list(ask.texts)), np.float32)


async def haystack(ask: Ask) -> np.ndarray:
    """Haystack's OpenAIDocumentEmbedder."""
    from haystack import Document  # type: ignore[import-not-found]
    from haystack.components.embedders import (  # type: ignore[import-not-found]
        OpenAIDocumentEmbedder,
    )
    from haystack.utils import Secret  # type: ignore[import-not-found]

    embedder = OpenAIDocumentEmbedder(
        api_key=Secret.from_token(ask.key),
        model=MODEL,
        api_base_url=ask.base_url,
        batch_size=ask.batch,
        progress_bar=False,
        raise_on_failure=True,
    )
    done = await embedder.run_async([Document(content=text) for text in ask.texts])
    return np.array([document.embedding for document in done["documents"]], np.float32)


CLIENTS: dict[str, Client] = {
    "ours": matrix,
    "ours, streamed": stream,
    "openai SDK": sdk,
    "LangChain": langchain,
    "LlamaIndex": llama_index,
    "LiteLLM": litellm,
    "openaivec": openaivec,
    "Haystack": haystack,
}
