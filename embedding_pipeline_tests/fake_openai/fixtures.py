"""Fixtures of both forms of the server; a ``conftest`` imports those it wants."""

from collections.abc import AsyncIterator, Iterator

import pytest

from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.fake_openai.server import FakeOpenAI, listening


@pytest.fixture
async def fake_openai() -> AsyncIterator[FakeOpenAI]:
    """A server in the loop of the test: quick, and its books are at hand."""
    async with listening(FakeOpenAI()) as fake:
        yield fake


@pytest.fixture(scope="session")
def fake_openai_server() -> Iterator[FakeProcess]:
    """One server process for the whole session; take ``fake_openai_process`` instead."""
    with process() as fake:
        yield fake


@pytest.fixture
def fake_openai_process(fake_openai_server: FakeProcess) -> Iterator[FakeProcess]:
    """The server in a process of its own, for tests that block or are killed. Fresh books."""
    fake_openai_server.reset()
    fake_openai_server.option(latency=0.0)
    yield fake_openai_server
    fake_openai_server.reset()
