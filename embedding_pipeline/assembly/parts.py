"""Parts that need no provider: datasets, source, counter, store.

Belongs here: making each from the settings. Does not belong here: the service or its
embedder, or any work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from embedding_pipeline.assembly.memory import share_one_heap
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.remote import StorageError
from embedding_pipeline.settings.demo_start import pin_demo_start
from embedding_pipeline.settings.environment import source_url
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.sources.base import ChunkSource
from embedding_pipeline.sources.opening import open_source
from embedding_pipeline.state.store import Store
from embedding_pipeline.tokens import TokenCounter, default_counter
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.local_storage import LocalStorage
from embedding_pipeline.vectors.object_storage import ObjectStorage
from embedding_pipeline.vectors.storage import Storage

_SQLITE: Final = "sqlite:///"


def build_datasets(settings: Settings) -> Datasets:
    """The datasets under ``data_dir``. Whoever works on them wants ``share_one_heap``."""
    share_one_heap()
    return Datasets(build_storage(settings))


def build_storage(settings: Settings) -> Storage:
    """Where datasets are kept.

    Raises:
        MissingExtra: the object store's client is not installed.
        ConfigurationError: it cannot be made from these settings and environment.
    """
    if settings.data_url is None:
        return LocalStorage(settings.data_path)
    try:
        return ObjectStorage(settings.data_url)
    except StorageError as exc:
        raise ConfigurationError(f"data_dir: {exc}") from exc


def build_counter(settings: Settings) -> TokenCounter:  # noqa: ARG001 - the seam for a choice
    """The token counter."""
    return default_counter()


def build_budgets(settings: Settings) -> Budgets | None:
    """What bounds spending; None where nothing does."""
    return Budgets(settings.budgets, settings.zone) if settings.budgets else None


def build_source(settings: Settings) -> ChunkSource:
    """The source the settings name. The demo's first day is kept from here on."""
    if settings.source.kind == "demo":
        pin_demo_start(settings)
    return peek_source(settings)


def peek_source(settings: Settings) -> ChunkSource:
    """The source the settings name, for looking only: nothing is kept of it."""
    url = source_url(settings.source) if settings.source.kind == "sql" else ""
    return open_source(settings.source, settings.start_date, url, settings.partitions.timezone)


def state_file(settings: Settings) -> Path | None:
    """The file of an embedded state store; None when the store is a server."""
    url = settings.state
    return Path(url.removeprefix(_SQLITE)) if url.startswith(_SQLITE) else None


def has_state(settings: Settings) -> bool:
    """Whether there is a store to ask, so that asking makes none on the way."""
    file = state_file(settings)
    return file is None or file.exists()


@contextmanager
def open_store(settings: Settings, clock: Clock | None = None) -> Iterator[Store]:
    """The shared store alone, for what needs no embedder."""
    with Store(settings.state, clock or SystemClock()) as store:
        yield store
