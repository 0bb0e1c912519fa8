"""The chain of one provider as it is put together in earnest, on a fake clock."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from embedding_pipeline.catalog import find_model
from embedding_pipeline.circuit import BreakerConfig
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.breaking import Breaking
from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.embedders.openai import OpenAIEmbedder
from embedding_pipeline.embedders.retrying import Retrying
from embedding_pipeline.embedders.stopping import Stopping
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI, listening


def chain_around(leaf: Embedder, clock: Clock, retry: RetryConfig, seed: int = 7) -> Retrying:
    """Retrying → breaking → stopping → leaf."""
    guarded = Breaking(Stopping(leaf, clock), "openai", BreakerConfig(), clock)
    return Retrying(guarded, retry, clock, random.Random(seed))


@asynccontextmanager
async def served_chain(seed: int) -> AsyncIterator[tuple[Retrying, FakeOpenAI]]:
    """A chain with a server of its own."""
    clock = FakeClock()
    async with listening(FakeOpenAI()) as fake:
        spec = find_model("openai/text-embedding-3-small")
        leaf = OpenAIEmbedder(spec, KEY, base_url=fake.base_url, clock=clock)
        async with chain_around(leaf, clock, RetryConfig(), seed) as chain:
            yield chain, fake
