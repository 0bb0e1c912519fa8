"""State stores for tests, each on a fresh SQLite file."""

from pathlib import Path

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
