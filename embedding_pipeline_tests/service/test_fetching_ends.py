"""Requests that are cut off, taken for dead, or not taken by the store: booked, never lost."""

import asyncio
import os
import random
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, update

from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.embedders.retrying import Retrying
from embedding_pipeline.errors import (
    InputRefused,
    ServiceClosed,
    StateError,
    TransientProviderError,
)
from embedding_pipeline.records import Priority, digest_of
from embedding_pipeline.service.fetching import Fetcher
from embedding_pipeline.service.retiring import sweep
from embedding_pipeline.state import owners, schema
from embedding_pipeline.state import sqlite as sqlite_module
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import (
    Books,
    HandClock,
    Provider,
    fault,
    items,
    open_fetcher,
    right,
    turns,
)
from embedding_pipeline_tests.service.landings import TEXTS, TOKENS, books_of, collect, texts_of
from embedding_pipeline_tests.stores import open_store

pytestmark = pytest.mark.anyio

# --- processes that come and go ----------------------------------------------------------------


async def test_what_a_dead_process_held_is_taken_over_at_once_and_booked(
    fetcher: Fetcher, store: Store, provider: Provider, clock: HandClock
) -> None:
    provider.gate = asyncio.Event()
    dying = asyncio.create_task(collect(fetcher, items(*TEXTS)))
    await provider.reached()
    gone = update(schema.owners).values(pid=2**22 - 1, started="")
    await store.write(lambda c: c.execute(gone))
    heir = Provider()
    landings = await collect(open_fetcher(store, heir, clock), items(*TEXTS))
    assert texts_of(landings, TEXTS) == sorted(TEXTS)
    books = await books_of(store)
    assert (books.settled, books.unknown, books.requests) == (TOKENS, TOKENS, 2)
    assert (books.flights, books.claims, books.owners) == (0, 0, 1)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)


async def test_a_process_that_only_stood_still_is_put_right_when_it_wakes(
    fetcher: Fetcher, store: Store, provider: Provider, clock: HandClock
) -> None:
    provider.gate = asyncio.Event()
    asleep = asyncio.create_task(collect(fetcher, items(*TEXTS)))
    await provider.reached()
    clock.elapsed += owners.LEASE_SECONDS + 1
    heir = Provider()
    heir.gate = asyncio.Event()
    second = asyncio.create_task(collect(open_fetcher(store, heir, clock), items(*TEXTS[:2])))
    await heir.reached()
    assert (await books_of(store)).unknown == TOKENS
    provider.gate.set()
    (landing,) = await asleep
    assert right(landing, TEXTS)
    assert (await books_of(store)).claims == 2, "what the heir claimed stays claimed"
    heir.gate.set()
    await second
    books = await books_of(store)
    assert books.settled == provider.tokens + heir.tokens
    assert books.unknown == 0, "it was booked, and taken back"
    assert (books.flights, books.claims, books.vectors) == (0, 0, 5)


async def test_one_that_stood_still_and_then_failed_is_booked_once(
    fetcher: Fetcher, store: Store, provider: Provider, clock: HandClock
) -> None:
    provider.gate = asyncio.Event()
    provider.script = {0: TransientProviderError("x", fault(billed=True))}
    asleep = asyncio.create_task(collect(fetcher, items(*TEXTS)))
    await provider.reached()
    now = int(clock.now() * 1000) + owners.LEASE_SECONDS * 1000 + 1
    assert await store.write(lambda c: sweep(c, now)) == 1
    provider.gate.set()
    with pytest.raises(TransientProviderError):
        await asleep
    books = await books_of(store)
    assert (books.unknown, books.flights, books.claims) == (TOKENS, 0, 0)


# --- cut off, or refused by the store ----------------------------------------------------------


@pytest.mark.parametrize("after", range(0, 60, 3))
async def test_cut_off_anywhere_nothing_stays_claimed_and_nothing_is_booked_twice(
    fetcher: Fetcher, store: Store, provider: Provider, after: int
) -> None:
    provider.poison = lambda text: text == "gamma"
    task = asyncio.create_task(collect(fetcher, items(*TEXTS)))
    for _ in range(after):
        await asyncio.sleep(0 if after % 2 else 0.0005)
        if task.done():
            break
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    books = await books_of(store)
    assert (books.flights, books.claims) == (0, 0)
    assert books.settled <= provider.tokens <= books.settled + books.unknown
    assert books.unknown <= TOKENS
    stored = await store.read(lambda c: set(c.scalars(select(schema.vectors.c.digest))))
    assert books.settled == sum(len(text) for text in TEXTS if digest_of(text) in stored)


async def test_cut_off_while_a_request_is_out_it_is_booked_as_unknown(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    provider.gate = asyncio.Event()
    task = asyncio.create_task(collect(fetcher, items(*TEXTS)))
    await provider.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await books_of(store) == Books(0, TOKENS, 1, 0, 0, 1, 0)


@pytest.mark.parametrize("again", [False, True])
async def test_cut_off_while_a_lost_request_is_tried_again_each_call_is_booked_once(
    store: Store, provider: Provider, again: bool
) -> None:
    clock = HandClock(through=900.0 if again else 0.0)
    provider.script = {0: TransientProviderError("lost", fault(billed=True))}
    trying = Retrying(provider, RetryConfig(), clock, random.Random(1))
    task = asyncio.create_task(collect(open_fetcher(store, trying, clock), items(*TEXTS)))
    await provider.reached()
    provider.gate = asyncio.Event()  # the second call waits for it
    if again:
        await provider.reached(2)
    else:
        await clock.slept()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    calls = 2 if again else 1
    assert await books_of(store) == Books(0, calls * TOKENS, calls, 0, 0, 1, 0)


async def test_cut_off_before_anything_is_sent_nothing_is_booked(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(_: Connection) -> None:
        loop.call_soon_threadsafe(started.set)

    first = asyncio.create_task(store.write(hold))
    task = asyncio.create_task(collect(fetcher, items(*TEXTS)))
    await started.wait()
    task.cancel()  # the claim waits for the writer, or has just been made
    with pytest.raises(asyncio.CancelledError):
        await task
    await first
    assert provider.calls == []
    assert await books_of(store) == Books(0, 0, 0, 0, 0, 1, 0)


async def test_what_the_store_did_not_take_is_booked_as_soon_as_it_does(
    store: Store,
    provider: Provider,
    clock: HandClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.02)
    with open_store(tmp_path) as hurried:
        fetcher = open_fetcher(hurried, provider, clock)
        provider.gate = asyncio.Event()
        task = asyncio.create_task(collect(fetcher, items(*TEXTS)))
        await provider.reached()
        lock = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        provider.gate.set()
        with pytest.raises(StateError, match="locked by another process"):
            await task
        assert (await books_of(hurried)).flights == 1
        lock.close()
        landings = await collect(fetcher, items(*TEXTS))
        assert texts_of(landings, TEXTS) == sorted(TEXTS)
        books = await books_of(hurried)
    assert books == Books(TOKENS, TOKENS, 2, 0, 0, 1, 5), "paid twice, and booked twice"
    assert provider.tokens == 2 * TOKENS


async def test_work_nobody_wants_any_more_is_not_sent(fetcher: Fetcher, provider: Provider) -> None:
    stream = fetcher.fetch(items(*TEXTS), Priority.NORMAL, lambda: False)
    assert [landing async for landing in stream] == []
    provider.gate = asyncio.Event()
    wanted = [True]
    slow = [
        asyncio.create_task(collect(fetcher, items(f"slow {n}"))) for n in range(3)
    ]  # all the slots there are for it
    queued = asyncio.create_task(_count(fetcher, lambda: wanted[0]))
    await provider.reached(3)
    wanted[0] = False
    provider.gate.set()
    await asyncio.gather(*slow)
    assert await queued == 0
    assert len(provider.calls) == 3


async def _count(fetcher: Fetcher, wanted: Callable[[], bool]) -> int:
    stream = fetcher.fetch(items("queued"), Priority.NORMAL, wanted)
    return len([landing async for landing in stream])


async def test_closing_lets_in_what_is_out_and_sends_no_more(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    provider.gate = asyncio.Event()
    task = asyncio.create_task(collect(fetcher, items(*TEXTS)))
    await provider.reached()
    closing = asyncio.create_task(fetcher.close(30.0))
    await turns()
    assert not closing.done()
    with pytest.raises(ServiceClosed):
        await collect(fetcher, items("late"))
    provider.gate.set()
    await closing
    (landing,) = await task
    assert right(landing, TEXTS)
    assert (await books_of(store)).settled == TOKENS


async def test_closing_does_not_wait_for_ever(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    provider.gate = asyncio.Event()
    task = asyncio.create_task(collect(fetcher, items(*TEXTS)))
    await provider.reached()
    await fetcher.close(0.02)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await books_of(store) == Books(0, TOKENS, 1, 0, 0, 1, 0)


async def test_a_refusal_is_no_failure_of_the_group(fetcher: Fetcher, provider: Provider) -> None:
    provider.script = {0: InputRefused("refused", replace(fault(), code="bad", status=400))}
    (landing,) = await collect(fetcher, items("only"))
    (refusal,) = landing.refused.values()
    assert (refusal.reason, refusal.code) == ("refused_by_provider", "bad")
    assert landing.digests == []


def test_the_lease_is_of_this_process(store: Store, fetcher: Fetcher) -> None:
    pids = store._transact(lambda c: list(c.scalars(select(schema.owners.c.pid))), False)
    assert pids == [os.getpid()]
