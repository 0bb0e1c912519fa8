"""A store that refuses one write, or keeps it and says that it did not: the books are right."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.embedders.retrying import Retrying
from embedding_pipeline.errors import StateError, TransientProviderError
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.service.harness import (
    Books,
    HandClock,
    Provider,
    fault,
    items,
    open_fetcher,
)
from embedding_pipeline_tests.service.landings import TEXTS, TOKENS, books_of, collect
from embedding_pipeline_tests.stores import url_in

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class Fickle(Store):
    """Fails the write with the number ``at``; ``kept`` is that it was kept all the same."""

    def __init__(self, folder: Path, at: int, *, kept: bool) -> None:
        super().__init__(url_in(folder), FakeClock())
        self._left = at
        self._kept = kept

    async def write(self, work: Callable[[Connection], T]) -> T:
        self._left -= 1
        if self._left != -1:
            return await super().write(work)
        if self._kept:
            await super().write(work)
        raise StateError("this write failed")


@pytest.mark.parametrize("failing", [1, 2, 3], ids=["first note", "second note", "vectors"])
async def test_every_call_is_booked_whichever_write_is_refused(
    failing: int, tmp_path: Path, provider: Provider
) -> None:
    lost = TransientProviderError("lost", fault(billed=True))
    provider.script = {0: lost, 1: lost}
    trying = Retrying(provider, RetryConfig(), HandClock(through=900.0), random.Random(1))
    with Fickle(tmp_path, failing, kept=False) as store:
        with pytest.raises(StateError):
            await collect(open_fetcher(store, trying, HandClock()), items(*TEXTS))
        assert await books_of(store) == Books(0, failing * TOKENS, failing, 0, 0, 1, 0)
    assert len(provider.calls) == failing


async def test_a_kept_write_that_is_reported_as_failed_takes_nothing_out_of_the_books(
    tmp_path: Path, provider: Provider
) -> None:
    provider.poison = lambda _: True
    with Fickle(tmp_path, 1, kept=True) as store:
        with pytest.raises(StateError):
            await collect(open_fetcher(store, provider, HandClock()), items(TEXTS[0]))
        assert await books_of(store) == Books(0, 0, 1, 0, 0, 1, 0)


async def test_a_note_that_was_kept_though_reported_as_failed_is_made_once(
    tmp_path: Path, provider: Provider
) -> None:
    provider.script = {0: TransientProviderError("lost", fault(billed=True))}
    trying = Retrying(provider, RetryConfig(), HandClock(through=900.0), random.Random(1))
    with Fickle(tmp_path, 1, kept=True) as store:
        with pytest.raises(StateError):
            await collect(open_fetcher(store, trying, HandClock()), items(*TEXTS))
        assert await books_of(store) == Books(0, TOKENS, 1, 0, 0, 1, 0)


async def test_vectors_that_were_kept_though_reported_as_failed_are_paid_once(
    tmp_path: Path, provider: Provider
) -> None:
    with Fickle(tmp_path, 1, kept=True) as store:
        with pytest.raises(StateError):
            await collect(open_fetcher(store, provider, HandClock()), items(*TEXTS))
        assert await books_of(store) == Books(TOKENS, 0, 1, 0, 0, 1, len(TEXTS))
