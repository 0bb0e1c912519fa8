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
