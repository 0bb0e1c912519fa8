"""A store for every test, of every kind, closed at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.servers import postgres_server, postgres_url
from embedding_pipeline_tests.stores import open_store

__all__ = ["postgres_server", "postgres_url", "store"]


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    if request.param == "postgres":
        with Store(request.getfixturevalue("postgres_url"), FakeClock()) as opened:
            yield opened
    else:
        with open_store(tmp_path) as opened:
            yield opened
