"""Each client's way from texts to one float32 matrix, as its own documentation shows it.

Belongs here: one coroutine a client, ``(base_url, key, texts) → vectors made``. All ask
for the same model, use requests of ``BATCH`` texts and ``IN_FLIGHT`` requests at once.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import numpy as np

MODEL = "text-embedding-3-small"
DIMENSIONS = 1536
BATCH = 256
IN_FLIGHT = 16
DAY = "2026-01-01"

Client = Callable[[str, str, Sequence[str]], Awaitable[int]]


def _batches(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]


async def bare(base_url: str, key: str, texts: Sequence[str]) -> int:
    """aiohttp, jiter and pybase64: decodes and checks nothing. The floor."""
    import aiohttp
    import jiter
    import pybase64

    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(session: aiohttp.ClientSession, batch: Sequence[str]) -> np.ndarray:
        body = {"model": MODEL, "input": batch, "encoding_format": "base64"}
        async with gate, session.post(f"{base_url}/embeddings", data=json.dumps(body)) as reply:
            content = jiter.from_json(await reply.read())
        joined = "".join(item["embedding"] for item in content["data"])
        raw = pybase64.b64decode(joined)
        return np.frombuffer(raw, np.float32).reshape(-1, DIMENSIONS)

    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        parts = await asyncio.gather(*(one(session, batch) for batch in _batches(texts)))
    return sum(map(len, parts))


async def sdk(base_url: str, key: str, texts: Sequence[str]) -> int:
    """The openai SDK as everybody uses it; stores nothing."""
    from openai import AsyncOpenAI

    gate = asyncio.Semaphore(IN_FLIGHT)
    async with AsyncOpenAI(api_key=key, base_url=base_url) as client:

        async def one(batch: Sequence[str]) -> np.ndarray:
            async with gate:
                reply = await client.embeddings.create(model=MODEL, input=list(batch))
            return np.array([item.embedding for item in reply.data], np.float32)

        parts = await asyncio.gather(*(one(batch) for batch in _batches(texts)))
    return sum(map(len, parts))


async def langchain(base_url: str, key: str, texts: Sequence[str]) -> int:
    """langchain-openai's ``aembed_documents``; skipped where it is not installed."""
    from langchain_openai import OpenAIEmbeddings  # type: ignore[import-not-found]

    model = OpenAIEmbeddings(
        model=MODEL,
        api_key=key,
        base_url=base_url,
        chunk_size=BATCH,
        check_embedding_ctx_length=False,
    )
    return len(np.array(await model.aembed_documents(list(texts)), np.float32))


async def llama_index(base_url: str, key: str, texts: Sequence[str]) -> int:
    """LlamaIndex's OpenAIEmbedding; skipped where it is not installed."""
    from llama_index.embeddings.openai import OpenAIEmbedding  # type: ignore[import-not-found]

    model = OpenAIEmbedding(
        model=MODEL, api_key=key, api_base=base_url, embed_batch_size=BATCH, num_workers=IN_FLIGHT
    )
    return len(np.array(await model.aget_text_embedding_batch(list(texts)), np.float32))


async def engine(base_url: str, key: str, texts: Sequence[str]) -> int:
    """Our engine without durable writes: plan, call, validate, retry; the matrix in memory."""
    from embedding_pipeline.assembly.embedder import build_embedder
    from embedding_pipeline.clock import SystemClock
    from embedding_pipeline.planning.requests import RequestCaps, plan_requests
    from embedding_pipeline.tokens import api_estimate, default_counter

    folder = mkdtemp()  # the shared rate limit needs a place, no vector is stored
    settings = _settings(base_url, folder)
    gate = asyncio.Semaphore(IN_FLIGHT)
    counts, estimates = default_counter().count(texts), api_estimate(texts)
    plans = plan_requests(counts, estimates, RequestCaps(max_inputs=BATCH, target_tokens=300_000))
    async with build_embedder(settings, key, SystemClock()) as embedder:

        async def one(start: int, stop: int) -> np.ndarray:
            async with gate:
                return (await embedder.embed(texts[start:stop])).vectors

        parts = await asyncio.gather(*(one(plan.start, plan.stop) for plan in plans))
    return sum(map(len, parts))


async def whole(base_url: str, key: str, texts: Sequence[str]) -> int:
    """Our whole path: chunks in Parquet → durable cache, ledger → vectors in Parquet."""
    from embedding_pipeline.assembly.parts import build_datasets
    from embedding_pipeline.assembly.service import EmbeddingService
    from embedding_pipeline.pipeline.embed import build_embeddings
    from embedding_pipeline_tests.engine.chunks import write_deduped

    with TemporaryDirectory() as folder:
        settings = _settings(base_url, folder)
        datasets = build_datasets(settings)
        await asyncio.to_thread(write_deduped, datasets, DAY, texts)
        async with EmbeddingService(settings=settings, api_key=key) as service:
            START_CLOCK[0]()
            (report,) = await build_embeddings(service, datasets, [DAY])
        STOP_CLOCK[0]()
        return report.embedded


STOP_CLOCK: list[Callable[[], None]] = [lambda: None]
"""Called where its work has ended and all is closed, so that tidying up is not counted."""


async def whole_from_disk(base_url: str, key: str, folder: str) -> int:
    """Our whole path over chunks that are on disk already, so that no text is held but its own."""
    from embedding_pipeline.assembly.parts import build_datasets
    from embedding_pipeline.assembly.service import EmbeddingService
    from embedding_pipeline.pipeline.embed import build_embeddings

    settings = _settings(base_url, folder)
    datasets = build_datasets(settings)
    async with EmbeddingService(settings=settings, api_key=key) as service:
        (report,) = await build_embeddings(service, datasets, [DAY])
    return report.embedded


def prepare(folder: str, texts: Iterator[str]) -> None:
    """Write the chunks that ``whole_from_disk`` reads."""
    from embedding_pipeline.assembly.parts import build_datasets
    from embedding_pipeline_tests.engine.chunks import write_deduped

    write_deduped(build_datasets(_settings("http://127.0.0.1:9/v1", folder)), DAY, texts)


START_CLOCK: list[Callable[[], None]] = [lambda: None]
"""Called where a client's own work begins, so that preparing its input is not counted."""


def _settings(base_url: str, folder: str | Path):  # type: ignore[no-untyped-def]
    from embedding_pipeline.settings.loading import load_settings

    provider = {"name": "openai", "kind": "openai", "base_url": base_url}
    return load_settings(
        {
            "data_dir": str(folder),
            "embedding": {"model": f"openai/{MODEL}"},
            "providers": [provider],
            "requests": {"max_inputs": BATCH, "target_tokens": 300_000},
            "limits": {"max_in_flight": IN_FLIGHT},
        }
    )


CLIENTS: dict[str, Client] = {
    "bare aiohttp": bare,
    "openai SDK": sdk,
    "LangChain": langchain,
    "LlamaIndex": llama_index,
    "ours, engine": engine,
    "ours, whole path": whole,
}
