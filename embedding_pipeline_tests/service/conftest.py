"""A store, a provider and a clock for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding_pipeline.service.fetching import Fetcher
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import HandClock, Provider, open_fetcher
from embedding_pipeline_tests.stores import open_store


@pytest.fixture
def clock() -> HandClock:
    """Pauses up to a second pass at once; longer ones wait for the test."""
    return HandClock(through=1.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with open_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def provider() -> Provider:
    """A provider that never fails unless told."""
    return Provider()


@pytest.fixture
def fetcher(store: Store, provider: Provider, clock: HandClock) -> Fetcher:
    """A fetcher on all of them."""
    return open_fetcher(store, provider, clock)
