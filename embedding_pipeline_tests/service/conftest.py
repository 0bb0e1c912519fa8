"""A store, a provider and a clock for every test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding_pipeline.service.fetching import Fetcher
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.servers import postgres_server, postgres_url
from embedding_pipeline_tests.service.harness import HandClock, Provider, open_fetcher
from embedding_pipeline_tests.stores import open_store

__all__ = ["postgres_server", "postgres_url"]

ON_EVERY_STORE = (".test_fetching", ".test_fetching_ends", ".test_in_batches")


@pytest.fixture
def clock() -> HandClock:
    """Pauses up to a second pass at once; longer ones wait for the test."""
    return HandClock(through=1.0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The transactions of a flight are the same on every kind of store."""
    if "store" in metafunc.fixturenames and metafunc.module.__name__.endswith(ON_EVERY_STORE):
        metafunc.parametrize("store", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    if getattr(request, "param", "sqlite") == "postgres":
        with Store(request.getfixturevalue("postgres_url"), FakeClock()) as opened:
            yield opened
    else:
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
