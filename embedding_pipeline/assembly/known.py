"""Texts whose vectors are stored, for comparing a server with them.

Belongs here: finding a handful among the latest days. Does not belong here: comparing
(``embedders.vouching``).
"""

import asyncio
import threading
from itertools import islice
from typing import Final

import numpy as np
import pyarrow as pa

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.cache import database
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.vouching import Known
from embedding_pipeline.errors import DataError
from embedding_pipeline.records import digest_of
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.store import Store

WANTED: Final = 5
"""One text would do to tell two models apart; a few show that it was no accident."""

DAYS_LOOKED_AT: Final = 5
ROWS_LOOKED_AT: Final = 100
MOST_CHARACTERS: Final = 4000


class SharedStore:
    """The state store, opened when somebody first needs it."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._store: Store | None = None

    def get(self) -> Store:
        """The open store. Blocks. Raises StateError."""
        with self._lock:
            if self._store is None:
                self._store = Store(self._settings.state, self._clock)
            return self._store

    def close(self) -> None:
        """Close it, if it was opened. Safe to call twice."""
        with self._lock:
            if self._store is not None:
                self._store.close()


async def known_texts(settings: Settings, shared: SharedStore) -> Known | None:
    """Chunks of the latest days, with their full vectors from the durable cache."""
    return await asyncio.to_thread(_find, settings, shared)


def _find(settings: Settings, shared: SharedStore) -> Known | None:
    space, datasets = settings.model_spec.space, build_datasets(settings)
    for day in reversed(datasets.embedded_days(space)[-DAYS_LOOKED_AT:]):
        try:
            batches = datasets.deduped_chunks(day).iter_batches(["text"], ROWS_LOOKED_AT)
            first = next(iter(batches), None)
        except DataError:  # the day is not whole; others are
            continue
        if first is not None and (found := _stored(settings, shared, first)) is not None:
            return found
    return None


def _stored(settings: Settings, shared: SharedStore, rows: pa.RecordBatch) -> Known | None:
    space = settings.model_spec.space
    short = (text for text in rows.column("text").to_pylist() if len(text) <= MOST_CHARACTERS)
    texts = list(dict.fromkeys(islice(short, ROWS_LOOKED_AT)))
    store = shared.get()
    number = store.ask(lambda c: database.find_space(c, space))
    if number is None or not texts:
        return None
    digests = [digest_of(text) for text in texts]
    looked = store.ask(lambda c: database.get_many(c, number, space, digests))
    places = np.flatnonzero(looked.found)[:WANTED]
    if not len(places):
        return None
    return Known([texts[place] for place in places], looked.vectors[places])
