"""A store for every test, closed at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.stores import open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with open_store(tmp_path) as opened:
        yield opened
