"""A store that refuses one write, or keeps it and says that it did not: the books are right."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.embedders.retrying import Retrying
from embedding_pipeline.errors import StateError, StateInterrupted, TransientProviderError
from embedding_pipeline.service.surely import ATTEMPTS
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
from embedding_pipeline_tests.service.landings import TEXTS, TOKENS, books_of, collect, texts_of
from embedding_pipeline_tests.stores import url_in

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class Fickle(Store):
    """Fails the write with the number ``at``; ``kept`` is that it was kept all the same.

    ``times`` is how often, one write after the other.
    """

    def __init__(
        self,
        folder: Path,
        at: int,
        *,
        kept: bool,
        error: type[StateError] = StateError,
        times: int = 1,
    ) -> None:
        super().__init__(url_in(folder), FakeClock())
        self._failing = range(-times, 0)
        self._left = at
        self._kept = kept
        self._error = error

    async def write(self, work: Callable[[Connection], T]) -> T:
        self._left -= 1
        if self._left not in self._failing:
            return await super().write(work)
        if self._kept:
            await super().write(work)
        raise self._error("this write failed")


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


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("times", [1, 3])
async def test_an_answer_that_a_restart_of_the_server_cut_off_is_stored_and_booked_once(
    tmp_path: Path, provider: Provider, kept: bool, times: int
) -> None:
    left = StateInterrupted
    with Fickle(tmp_path, 1, kept=kept, error=left, times=times) as store:
        landings = await collect(open_fetcher(store, provider, HandClock()), items(*TEXTS))
        assert texts_of(landings, TEXTS) == sorted(TEXTS)
        assert await books_of(store) == Books(TOKENS, 0, 1, 0, 0, 1, len(TEXTS))
    assert len(provider.calls) == 1


async def test_a_server_that_never_takes_an_answer_ends_the_run(
    tmp_path: Path, provider: Provider
) -> None:
    left = StateInterrupted
    with Fickle(tmp_path, 1, kept=False, error=left, times=ATTEMPTS) as store:
        with pytest.raises(StateInterrupted):
            await collect(open_fetcher(store, provider, HandClock()), items(*TEXTS))
        assert await books_of(store) == Books(0, TOKENS, 1, 0, 0, 1, 0)
