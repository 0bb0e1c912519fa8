"""Bulk runs: the window, the source and the reader, and how a run can end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

import pytest

from embedding_pipeline.errors import (
    KeyExhausted,
    ServiceClosed,
)
from embedding_pipeline.ledger import quarantine
from embedding_pipeline.records import Account, digest_of
from embedding_pipeline.service import bulk as bulk_module
from embedding_pipeline.service.bulk import BulkRun
from embedding_pipeline.service.finishing import let_in
from embedding_pipeline.service.work import FilledBatch, Progress, Row, WorkBatch
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import (
    MAX_TOKENS,
    PRICE,
    SPACE,
    Provider,
    fault,
    read_books,
    turns,
)
from embedding_pipeline_tests.service.streams import (
    DAYS,
    assert_right,
    batch,
    bulk,
    drain,
    stream,
)

pytestmark = pytest.mark.anyio


async def test_requests_fill_across_batches_and_days(store: Store, provider: Provider) -> None:
    batches = [batch([f"text {n}"], n, DAYS[n % 2]) for n in range(8)]
    await drain(bulk(store, provider, stream(batches)))
    assert [len(call) for call in provider.calls] == [4, 4]


async def test_a_full_window_sends_what_is_pending_rather_than_wait_for_company(
    store: Store, provider: Provider
) -> None:
    batches = [batch([f"text {n}"], n) for n in range(6)]
    filled = await drain(bulk(store, provider, stream(batches), window_rows=2))
    assert len(filled) == 6
    assert max(map(len, provider.calls)) <= 2


async def test_a_slow_reader_holds_the_source_back(store: Store, provider: Provider) -> None:
    taken: list[int] = []

    async def source() -> AsyncIterator[WorkBatch]:
        for n in range(50):
            taken.append(n)
            yield batch([f"text {n}"], n)

    async with aclosing(bulk(store, provider, source(), window_rows=5).batches()) as batches:
        first = await anext(batches)
        await _a_while(store)
        assert len(taken) <= 7, "the window, one in hand, and the one that waits for room"
        rest = [one async for one in batches]
    assert [first.work.chunk_ids[0], rest[-1].work.chunk_ids[0]] == ["chunk 0", "chunk 49"]


async def test_an_error_of_the_source_reaches_the_reader_after_what_was_whole(
    store: Store, provider: Provider
) -> None:
    async def source() -> AsyncIterator[WorkBatch]:
        yield batch(["a", "b", "c", "d"])
        await provider.reached()
        raise LookupError("the source is broken")

    filled: list[FilledBatch] = []
    with pytest.raises(LookupError, match="the source is broken"):
        await drain(bulk(store, provider, source()), filled)
    assert len(filled) == 1
    books = await store.read(read_books)
    assert (books.settled, books.unknown, books.flights, books.claims) == (4, 0, 0, 0)


async def test_leaving_early_ends_everything_and_sends_nothing_more(
    store: Store, provider: Provider
) -> None:
    closed = []

    async def source() -> AsyncIterator[WorkBatch]:
        try:
            for n in range(100):
                yield batch([f"text {n} {i}" for i in range(3)], 3 * n)
        finally:
            closed.append(True)

    provider.gate = asyncio.Event()  # requests stay out
    task = asyncio.create_task(drain(bulk(store, provider, source(), window_rows=9)))
    await provider.reached(2)
    await _a_while(store)  # two requests are out, a text is pending, and the window is full
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _a_while(store)
    assert [len(call) for call in provider.calls] == [4, 4]
    assert closed == [True]
    books = await store.read(read_books)
    assert (books.flights, books.claims, books.settled) == (0, 0, 0)
    sent = "".join(text for call in provider.calls for text in call)
    assert books.unknown == len(sent), "what was out may have been billed"


async def fail_to_read(run: BulkRun, provider: Provider) -> None:
    """A reader that breaks while two requests are out; their answers come right after that."""
    assert provider.gate is not None
    async with aclosing(run.batches()) as batches:
        await anext(batches)
        await provider.reached(2)
        asyncio.get_running_loop().call_soon(provider.gate.set)
        raise OSError("the disk is full")


async def test_what_is_out_when_the_reader_fails_is_stored(
    store: Store, provider: Provider
) -> None:
    provider.gate = asyncio.Event()
    batches = [batch([]), batch([f"text {n}" for n in range(20)])]
    with pytest.raises(OSError, match="the disk is full"):
        await fail_to_read(bulk(store, provider, stream(batches)), provider)
    books = await store.read(read_books)
    assert books.settled == sum(len(text) for call in provider.calls for text in call) > 0
    assert (books.unknown, books.flights, books.claims) == (0, 0, 0)


async def test_what_takes_too_long_when_the_reader_fails_is_booked_as_unknown(
    store: Store, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_module, "let_in", partial(let_in, seconds=0.02))
    provider.gate = asyncio.Event()
    monkeypatch.setattr(provider.gate, "set", lambda: None)  # no answer ever comes
    batches = [batch([]), batch([f"text {n}" for n in range(20)])]
    with pytest.raises(OSError, match="the disk is full"):
        await fail_to_read(bulk(store, provider, stream(batches)), provider)
    books = await store.read(read_books)
    assert books.unknown == sum(len(text) for call in provider.calls for text in call) > 0
    assert (books.settled, books.flights, books.claims) == (0, 0, 0)


async def _a_while(store: Store) -> None:
    """Until everything that can go on has gone on, threads included."""
    for _ in range(30):
        await turns()
        await store.read(read_books)


async def test_once_it_has_failed_nothing_that_waits_for_a_slot_is_sent(
    store: Store, provider: Provider
) -> None:
    provider.script = {0: KeyExhausted("no quota", fault())}
    provider.gate = asyncio.Event()
    texts = [f"text {n}" for n in range(100)]
    task = asyncio.create_task(drain(bulk(store, provider, stream([batch(texts)]))))
    await provider.reached(3)  # one slot of four is for urgent calls
    provider.gate.set()
    with pytest.raises(KeyExhausted):
        await task
    assert len(provider.calls) == 3


async def test_a_run_that_is_stopped_says_why_once_what_is_out_has_come_in(
    store: Store, provider: Provider
) -> None:
    provider.gate = asyncio.Event()
    texts = [f"text {n}" for n in range(40)]
    run = bulk(store, provider, stream([batch(texts)]))
    task = asyncio.create_task(drain(run))
    await provider.reached(3)
    run.stop(ServiceClosed("the service closed"))
    provider.gate.set()
    with pytest.raises(ServiceClosed, match="the service closed"):
        await task
    assert (await store.read(read_books)).settled == provider.tokens == sum(map(len, texts[:12]))


async def test_a_cancelled_reader_leaves_nothing_behind(store: Store, provider: Provider) -> None:
    provider.gate = asyncio.Event()
    task = asyncio.create_task(drain(bulk(store, provider, stream([batch(["a", "b"])]))))
    await provider.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    books = await store.read(read_books)
    assert (books.unknown, books.flights, books.claims) == (2, 0, 0)


async def test_a_broken_observer_ends_the_run_instead_of_hanging_it(
    store: Store, provider: Provider
) -> None:
    def observe(progress: Progress) -> None:
        if progress.embedded:
            raise LookupError("the observer is broken")

    with pytest.raises(LookupError, match="observer"):
        await drain(bulk(store, provider, stream([batch(["a", "b"])]), on_progress=observe))


# --- figures and lasting refusals --------------------------------------------------------------


async def test_progress_only_grows_and_ends_with_everything(
    store: Store, provider: Provider
) -> None:
    seen: list[Progress] = []
    batches = [batch([f"text {n}", f"text {n}", ""], n) for n in range(6)]
    run = bulk(store, provider, stream(batches), on_progress=seen.append)
    await drain(run)
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert (seen[-1].done, seen[-1].embedded) == (18, 6)
    assert seen[-1].cost_nano_usd == provider.tokens * PRICE
    tally = run.tallies[DAYS[0]]
    assert (tally.embedded, tally.cached, tally.quarantined) == (6, 6, 6)
    assert tally.saved_tokens == provider.tokens


async def test_a_second_run_makes_no_request(store: Store, provider: Provider) -> None:
    batches = [batch([f"text {n}" for n in range(10)])]
    await drain(bulk(store, provider, stream(batches)))
    calls = len(provider.calls)
    (filled,) = await drain(bulk(store, provider, stream(batches)))
    assert_right(filled, "reject")
    assert set(filled.status) == {Row.CACHED}
    assert len(provider.calls) == calls


async def test_a_text_that_is_known_to_be_refused_is_not_tried_again_until_redriven(
    store: Store, provider: Provider
) -> None:
    held = quarantine.Held(
        str(SPACE), Account("p", "", DAYS[0]), "chunk 0", digest_of("a"), quarantine.REFUSED
    )

    def refusals(filled: FilledBatch) -> dict[int, tuple[str, bool]]:
        return {row: (why.reason, why.attempted) for row, why in filled.refused.items()}

    run = bulk(store, provider, stream([]))
    number = run._parts.fetcher.terms.space_id
    await store.write(lambda c: quarantine.hold(c, number, [held], 0))
    (first,) = await drain(bulk(store, provider, stream([batch(["a", "b"])])))
    assert refusals(first) == {0: (quarantine.REFUSED, False)}
    assert provider.calls == [("b",)]
    await store.write(quarantine.redrive)
    (second,) = await drain(bulk(store, provider, stream([batch(["a", "b"])])))
    assert refusals(second) == {}
    assert provider.calls == [("b",), ("a",)]


async def test_a_derived_text_is_embedded_if_any_part_was_paid_and_cached_if_none_was(
    store: Store, provider: Provider
) -> None:
    long = "a" * MAX_TOKENS + "b" * 10
    batches = [batch(["b" * 10]), batch([long])]
    _, first = await drain(bulk(store, provider, stream(batches), policy="split_mean"))
    assert first.status.tolist() == [Row.EMBEDDED]
    assert first.derived == {0: ("split_mean", 2)}
    (second,) = await drain(bulk(store, provider, stream(batches[1:]), policy="split_mean"))
    assert second.status.tolist() == [Row.CACHED]
    assert (second.vectors == first.vectors).all()


async def test_two_runs_of_one_service_share_what_both_need(
    store: Store, provider: Provider
) -> None:
    texts = [f"text {n}" for n in range(30)]
    runs = [bulk(store, provider, stream([batch(texts)])) for _ in range(2)]
    ends = await asyncio.gather(*map(drain, runs))
    for (filled,) in ends:
        assert_right(filled, "reject")
    assert set(provider.billed.values()) == {1}
    assert sum(run.tallies[DAYS[0]].embedded for run in runs) == 30


async def test_a_batch_larger_than_the_window_gets_through(
    store: Store, provider: Provider, tmp_path: Path
) -> None:
    texts = [f"text {n}" for n in range(30)]
    (filled,) = await drain(bulk(store, provider, stream([batch(texts)]), window_rows=3))
    assert_right(filled, "reject")
    with suppress(StopAsyncIteration):
        await anext(bulk(store, provider, stream([])).batches())
