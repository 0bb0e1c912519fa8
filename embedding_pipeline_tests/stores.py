"""State stores for tests: helpers on a fresh SQLite file, and a fixture over every kind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.clock import FakeClock


def open_store(folder: Path, clock: FakeClock | None = None) -> Store:
    """The store in ``folder``: the same file for all who ask."""
    return Store(url_in(folder), clock or FakeClock())


def url_in(folder: Path) -> str:
    """Where ``open_store`` keeps it."""
    return f"sqlite:///{folder / 'state.db'}"


def another(store: Store) -> Store:
    """A second store on the same database, as another process would open it."""
    return Store(store.url, FakeClock())


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """An empty store of each kind; a ``conftest`` imports it with ``postgres_url``."""
    if request.param == "postgres":
        with Store(request.getfixturevalue("postgres_url"), FakeClock()) as opened:
            yield opened
    else:
        with open_store(tmp_path) as opened:
            yield opened
