"""The fake API for these tests, and the leaf and chain that talk to it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from embedding_pipeline.catalog import find_model
from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.embedders.openai import OpenAIEmbedder
from embedding_pipeline.embedders.retrying import Retrying
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.embedders.chain import chain_around
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai,
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI

MakeLeaf = Callable[..., OpenAIEmbedder]
MakeChain = Callable[..., Retrying]


@pytest.fixture
async def make_leaf(
    fake_openai: FakeOpenAI,  # noqa: F811
) -> AsyncIterator[MakeLeaf]:
    """Makes embedders for the fake API; they are closed with the test."""
    async with AsyncExitStack() as stack:

        def make(model: str = "openai/text-embedding-3-small", **options: Any) -> OpenAIEmbedder:
            options = {"api_key": KEY, "base_url": fake_openai.base_url, **options}
            leaf = OpenAIEmbedder(find_model(model), **options)
            stack.push_async_callback(leaf.aclose)
            return leaf

        yield make


@pytest.fixture
def make_chain(make_leaf: MakeLeaf, clock: FakeClock) -> MakeChain:
    """Makes chains for the fake API, on the clock of the test."""

    def make(retry: RetryConfig | None = None, **options: Any) -> Retrying:
        return chain_around(make_leaf(clock=clock, **options), clock, retry or RetryConfig())

    return make
