"""Each client's way from texts to one float32 matrix, with what it does about failures itself.

Belongs here: one coroutine a client, ``(base_url, key, texts, folder) → vectors``, written as
its own documentation shows; ``folder`` is where it may keep what is to be found again. All ask
for the same model, in requests of ``BATCH`` texts and ``IN_FLIGHT`` requests at once where that
can be said. Does not belong here: anything a user would have to write around the client.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

MODEL = "text-embedding-3-small"
BATCH = 256
IN_FLIGHT = 16
DAY = "2026-01-01"

Client = Callable[[str, str, Sequence[str], str], Awaitable[np.ndarray]]


async def sdk(base_url: str, key: str, texts: Sequence[str], folder: str) -> np.ndarray:  # noqa: ARG001
    """The openai SDK; it keeps nothing."""
    from openai import AsyncOpenAI

    gate = asyncio.Semaphore(IN_FLIGHT)
    async with AsyncOpenAI(api_key=key, base_url=base_url) as client:

        async def one(batch: Sequence[str]) -> np.ndarray:
            async with gate:
                reply = await client.embeddings.create(model=MODEL, input=list(batch))
            return np.array([item.embedding for item in reply.data], np.float32)

        batches = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
        return np.concatenate(await asyncio.gather(*map(one, batches)))


async def langchain(base_url: str, key: str, texts: Sequence[str], folder: str) -> np.ndarray:
    """``CacheBackedEmbeddings`` over files: what it offers for not paying again."""
    from langchain_classic.embeddings import CacheBackedEmbeddings  # type: ignore[import-not-found]
    from langchain_classic.storage import LocalFileStore  # type: ignore[import-not-found]
    from langchain_openai import OpenAIEmbeddings  # type: ignore[import-not-found]

    model = OpenAIEmbeddings(
        model=MODEL,
        api_key=key,
        base_url=base_url,
        chunk_size=BATCH,
        check_embedding_ctx_length=False,
    )
    cached = CacheBackedEmbeddings.from_bytes_store(
        model, LocalFileStore(folder), namespace=MODEL, key_encoder="sha256", batch_size=BATCH
    )
    return np.array(await cached.aembed_documents(list(texts)), np.float32)


async def llama_index(base_url: str, key: str, texts: Sequence[str], folder: str) -> np.ndarray:  # noqa: ARG001
    """LlamaIndex's OpenAIEmbedding."""
    from llama_index.embeddings.openai import OpenAIEmbedding  # type: ignore[import-not-found]

    model = OpenAIEmbedding(
        model=MODEL, api_key=key, api_base=base_url, embed_batch_size=BATCH, num_workers=IN_FLIGHT
    )
    return np.array(await model.aget_text_embedding_batch(list(texts)), np.float32)


async def litellm(base_url: str, key: str, texts: Sequence[str], folder: str) -> np.ndarray:
    """LiteLLM with its disk cache where that is installed."""
    import litellm as lite  # type: ignore[import-not-found]

    try:
        lite.cache = lite.Cache(type="disk", disk_cache_dir=folder)
    except ImportError:
        lite.cache = None
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(batch: Sequence[str]) -> np.ndarray:
        async with gate:
            reply = await lite.aembedding(
                model=f"openai/{MODEL}", input=list(batch), api_base=base_url, api_key=key
            )
        return np.array([item["embedding"] for item in reply.data], np.float32)

    batches = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
    return np.concatenate(await asyncio.gather(*map(one, batches)))


async def openaivec(base_url: str, key: str, texts: Sequence[str], folder: str) -> np.ndarray:  # noqa: ARG001
    """Openaivec's AsyncBatchEmbeddings."""
    from openai import AsyncOpenAI
    from openaivec import AsyncBatchEmbeddings  # type: ignore[import-not-found]

    async with AsyncOpenAI(api_key=key, base_url=base_url) as client:
        model = AsyncBatchEmbeddings.of(client, MODEL, batch_size=BATCH, max_concurrency=IN_FLIGHT)
        return np.array(await model.create(list(texts)), np.float32)


async def haystack(base_url: str, key: str, texts: Sequence[str], folder: str) -> np.ndarray:  # noqa: ARG001
    """Haystack's OpenAIDocumentEmbedder."""
    from haystack import Document  # type: ignore[import-not-found]
    from haystack.components.embedders import (  # type: ignore[import-not-found]
        OpenAIDocumentEmbedder,
    )
    from haystack.utils import Secret  # type: ignore[import-not-found]

    embedder = OpenAIDocumentEmbedder(
        api_key=Secret.from_token(key),
        model=MODEL,
        api_base_url=base_url,
        batch_size=BATCH,
        progress_bar=False,
        raise_on_failure=True,
    )
    done = await embedder.run_async([Document(content=text) for text in texts])
    return np.array([document.embedding for document in done["documents"]], np.float32)


async def ours(base_url: str, key: str, texts: Sequence[str], folder: str) -> np.ndarray:
    """Our whole path: durable cache, ledger, limits, one matrix in the order of the texts."""
    from embedding_pipeline.assembly.service import EmbeddingService
    from embedding_pipeline.records import Account
    from embedding_pipeline.service.work import WorkBatch
    from embedding_pipeline.settings.loading import load_settings
    from embedding_pipeline.tokens import default_counter

    provider = {"name": "openai", "kind": "openai", "base_url": base_url}
    settings = load_settings(
        {
            "data_dir": folder,
            "embedding": {"model": f"openai/{MODEL}"},
            "providers": [provider],
            "requests": {"max_inputs": BATCH, "target_tokens": 300_000},
            "limits": {"max_in_flight": IN_FLIGHT},
        }
    )

    async def work():  # type: ignore[no-untyped-def]
        for start in range(0, len(texts), 1024):
            part = list(texts[start : start + 1024])
            names = [str(start + i) for i in range(len(part))]
            accounts = [Account("bench", "", DAY)] * len(part)
            yield WorkBatch(DAY, names, part, default_counter().count(part), accounts)

    async with EmbeddingService(settings=settings, api_key=key) as service:
        return np.concatenate([batch.vectors async for batch in service.bulk(work()).batches()])


CLIENTS: dict[str, Client] = {
    "ours": ours,
    "openai SDK": sdk,
    "LangChain": langchain,
    "LlamaIndex": llama_index,
    "LiteLLM": litellm,
    "openaivec": openaivec,
    "Haystack": haystack,
}
