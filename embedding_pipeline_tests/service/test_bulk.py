"""Streams of batches: in order, every row decided once, paid once, whatever goes wrong."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.embedders.fake import fake_vector, fake_vectors
from embedding_pipeline.errors import (
    CircuitOpen,
    InputRefused,
    InvalidReply,
    KeyExhausted,
    ProviderError,
    ProviderRefused,
    RateLimited,
    RequestTooLarge,
    ServiceClosed,
    StateError,
    TransientProviderError,
)
from embedding_pipeline.ledger import quarantine
from embedding_pipeline.planning.inputs import Policy, combine, split_within
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import Account, Priority, digest_of
from embedding_pipeline.service.bulk import BulkParts, BulkRun, OnProgress
from embedding_pipeline.service.work import FilledBatch, Progress, Row, WorkBatch
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import (
    MAX_TOKENS,
    PRICE,
    SPACE,
    WIDTH,
    Characters,
    HandClock,
    Provider,
    fault,
    open_fetcher,
    read_books,
    rules,
    turns,
)
from embedding_pipeline_tests.stores import open_store

pytestmark = pytest.mark.anyio

CAPS = RequestCaps(max_inputs=4, max_input_tokens=MAX_TOKENS, target_tokens=80)
ROOMY = 1 << 20
DAYS = ("2026-01-01", "2026-01-02")
POISON = "poison"
SPLIT = (InputRefused, RequestTooLarge, InvalidReply)
STOP = (
    RateLimited,
    KeyExhausted,
    ProviderRefused,
    CircuitOpen,
    TransientProviderError,
    StateError,
    LookupError,
)


def batch(texts: Sequence[str], first: int = 0, day: str = DAYS[0]) -> WorkBatch:
    """Chunks of one day, of two projects."""
    return WorkBatch(
        day,
        [f"chunk {first + n}" for n in range(len(texts))],
        list(texts),
        Characters().count(texts),
        [Account(f"project {len(text) % 2}", "", day) for text in texts],
    )


def stream(batches: Sequence[WorkBatch]) -> AsyncIterator[WorkBatch]:
    """The batches, with a turn of the loop before each."""

    async def generate() -> AsyncIterator[WorkBatch]:
        for one in batches:
            await asyncio.sleep(0)
            yield one

    return generate()


def bulk(
    store: Store,
    provider: Provider,
    source: AsyncIterator[WorkBatch],
    *,
    policy: Policy = "reject",
    window_rows: int = ROOMY,
    on_progress: OnProgress | None = None,
) -> BulkRun:
    clock = HandClock(through=1.0)
    parts = BulkParts(
        open_fetcher(store, provider, clock),
        store,
        rules(policy),
        CAPS,
        Priority.BULK,
        clock,
        window_bytes=window_rows * 4 * WIDTH,
    )
    return BulkRun(parts, source, on_progress=on_progress)


async def drain(run: BulkRun, filled: list[FilledBatch] | None = None) -> list[FilledBatch]:
    """All batches; those before an error are in ``filled``. A run that hangs is an error."""
    out = [] if filled is None else filled
    async with asyncio.timeout(60), aclosing(run.batches()) as batches:
        async for one in batches:
            out.append(one)
            await asyncio.sleep(0)
    return out


def expected(text: str, policy: Policy) -> np.ndarray | None:
    """The right vector of a text, or None where it is refused."""
    if not text.strip() or text.startswith(POISON):
        return None
    if len(text) <= MAX_TOKENS:
        return fake_vector("hash", text, WIDTH)
    if policy == "reject":
        return None
    if policy == "truncate":
        return fake_vector("hash", text[:MAX_TOKENS], WIDTH)
    parts = split_within(text, MAX_TOKENS, Characters().truncate)
    lengths = np.array([len(part) for part in parts], np.int32)
    return combine(fake_vectors("hash", parts, WIDTH), lengths)


def assert_right(one: FilledBatch, policy: Policy) -> None:
    """Every row is decided, and is what its text deserves."""
    for row, text in enumerate(one.work.texts):
        vector = expected(text, policy)
        refused = one.status[row] == Row.REFUSED
        assert one.status[row] in {Row.EMBEDDED, Row.CACHED, Row.REFUSED}
        assert refused == (vector is None) == (row in one.refused)
        assert (one.vectors[row] == (0 if vector is None else vector)).all()
        assert (row in one.derived) == (len(text) > MAX_TOKENS and policy != "reject")


# --- any stream --------------------------------------------------------------------------------

short = st.sampled_from([f"text {n}" for n in range(12)])
words = st.one_of(
    short,
    st.sampled_from(["", "  \n", f"{POISON} 1", f"{POISON} 2"]),
    st.sampled_from(["long " * 20, "very long " * 15, "text 1" + " " * 80]),
)
streams = st.lists(st.lists(words, max_size=9), max_size=6)


@dataclass(frozen=True)
class Trouble:
    """The n-th call fails with this error; it may have been billed."""

    call: int
    error: type[Exception]
    billed: bool

    def make(self) -> Exception:
        if issubclass(self.error, ProviderError):
            return self.error("on purpose", fault(billed=self.billed))
        return self.error("on purpose")


troubles = st.builds(Trouble, st.integers(0, 6), st.sampled_from([*SPLIT, *STOP]), st.booleans())
policies = st.sampled_from(["reject", "truncate", "split_mean"])


def _batches(texts: Sequence[Sequence[str]]) -> list[WorkBatch]:
    half = len(texts) // 2
    return [batch(own, first=100 * n, day=DAYS[n >= half]) for n, own in enumerate(texts)]


def _provider() -> Provider:
    provider = Provider()
    provider.poison = lambda text: text.startswith(POISON)
    return provider


@settings(max_examples=60)
@given(texts=streams, policy=policies, window=st.sampled_from([1, 5, ROOMY]))
async def test_any_stream_comes_out_in_order_with_every_row_decided_and_paid_once(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[list[str]],
    policy: Policy,
    window: int,
) -> None:
    provider, batches = _provider(), _batches(texts)
    with open_store(tmp_path_factory.mktemp("state")) as store:
        run = bulk(store, provider, stream(batches), policy=policy, window_rows=window)
        filled = await drain(run)
        books = await store.read(read_books)
    assert [one.work for one in filled] == batches
    for one in filled:
        assert_right(one, policy)
    assert set(provider.billed.values()) <= {1}, "each text is paid once"
    assert (books.settled, books.unknown) == (provider.tokens, 0)
    assert (books.flights, books.claims, books.requests) == (0, 0, len(provider.calls))
    assert sum(tally.input_tokens for tally in run.tallies.values()) == provider.tokens
    for day, tally in run.tallies.items():
        mine = [one for one in filled if one.work.partition == day]
        status = np.concatenate([one.status for one in mine])
        assert tally.chunks == len(status)
        assert tally.embedded == (status == Row.EMBEDDED).sum()
        assert tally.cached == (status == Row.CACHED).sum()
        assert tally.quarantined == (status == Row.REFUSED).sum()


@settings(max_examples=80)
@given(texts=streams, trouble=troubles, window=st.sampled_from([3, ROOMY]))
async def test_an_error_is_raised_or_costs_nothing_but_itself_and_a_rerun_pays_the_rest(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[list[str]],
    trouble: Trouble,
    window: int,
) -> None:
    provider, batches, filled = _provider(), _batches(texts), list[FilledBatch]()
    provider.script = {trouble.call: trouble.make()}
    with open_store(tmp_path_factory.mktemp("state")) as store:
        first = bulk(store, provider, stream(batches), window_rows=window)
        stopped = None
        try:
            await drain(first, filled)
        except trouble.error as exc:
            stopped = exc
        books = await store.read(read_books)
        struck = len(provider.calls) > trouble.call
        assert (stopped is not None) == (struck and trouble.error in STOP)
        assert [one.work for one in filled] == batches[: len(filled)]
        assert (books.flights, books.claims) == (0, 0)
        assert books.settled == provider.tokens
        _assert_booked(trouble, struck, books.unknown)
        provider.script = {}
        second = await drain(bulk(store, provider, stream(batches)))
        books = await store.read(read_books)
    assert [one.work for one in second] == batches
    for one in second:
        assert_right(one, "reject")
    assert set(provider.billed.values()) <= {1}, "what had landed is not paid again"
    assert books.settled == provider.tokens


def _assert_booked(trouble: Trouble, struck: bool, unknown: int) -> None:
    foreign = trouble.error in {StateError, LookupError}
    sent = trouble.error is not CircuitOpen  # our own breaker: nothing left the process
    may_be_billed = struck and sent and (trouble.billed or foreign)
    assert (unknown > 0) == may_be_billed


# --- the window, the source, the reader --------------------------------------------------------


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
        for _ in range(50):
            await turns()
            await store.read(read_books)
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
                yield batch([f"text {n} {i}" for i in range(4)], 4 * n)
        finally:
            closed.append(True)

    run = bulk(store, provider, source(), window_rows=12)
    async with aclosing(run.batches()) as batches:
        await anext(batches)
        provider.gate = asyncio.Event()  # from now on requests stay out
        calls = len(provider.calls)
        await provider.reached(calls + 1)
    after = len(provider.calls)
    await turns(100)
    assert len(provider.calls) == after
    assert closed == [True]
    books = await store.read(read_books)
    assert (books.flights, books.claims) == (0, 0)
    assert books.settled == provider.tokens
    assert books.unknown > 0, "what was out may have been billed"


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
