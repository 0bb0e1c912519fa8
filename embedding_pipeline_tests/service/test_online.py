"""Single texts from many callers: company in a few milliseconds, and nobody hurt by another."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.cache.memory import MemoryTier
from embedding_pipeline.embedders.fake import fake_vector
from embedding_pipeline.errors import (
    InputRefused,
    KeyExhausted,
    Overloaded,
    ServiceClosed,
    TextRefused,
)
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import Priority
from embedding_pipeline.service.lanes import Waiting, rank
from embedding_pipeline.service.online import Call, MicroBatcher, choose
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import (
    WIDTH,
    HandClock,
    Provider,
    fault,
    item,
    open_fetcher,
    read_books,
    turns,
)

pytestmark = pytest.mark.anyio

WAIT = 2.0
"""More than the clock lets pass by itself: a batch leaves when a test says so."""

CAPS = RequestCaps(max_inputs=4, max_input_tokens=20, target_tokens=20)
NORMAL, URGENT, BULK = Priority.NORMAL, Priority.URGENT, Priority.BULK


@pytest.fixture
def memory() -> MemoryTier:
    return MemoryTier(1 << 20, WIDTH)


@pytest.fixture
def batcher(store: Store, provider: Provider, clock: HandClock, memory: MemoryTier) -> MicroBatcher:
    return MicroBatcher(open_fetcher(store, provider, clock), memory, CAPS, WAIT, clock)


def ask(batcher: MicroBatcher, text: str, lane: Priority = NORMAL) -> asyncio.Task[np.ndarray]:
    return asyncio.create_task(batcher.vector(item(text), lane))


def is_right(text: str, vector: np.ndarray) -> bool:
    return bool((vector == fake_vector("hash", text, WIDTH)).all())


# --- choose ------------------------------------------------------------------------------------


@st.composite
def queues(draw: st.DrawFn) -> list[tuple[str, Priority, float]]:
    texts = st.text(alphabet="ab", min_size=1, max_size=20)
    return draw(st.lists(st.tuples(texts, st.sampled_from(Priority), st.floats(0, 60)), min_size=1))


def _calls(rows: Sequence[tuple[str, Priority, float]]) -> list[Call]:
    return [Call(item(text), Waiting(lane, since, n)) for n, (text, lane, since) in enumerate(rows)]


@given(queues())
async def test_a_request_takes_who_ranks_first_and_breaks_no_cap(
    rows: list[tuple[str, Priority, float]],
) -> None:
    calls = _calls(rows)
    chosen = choose(calls, CAPS, 100.0)
    assert min(calls, key=lambda call: rank(call.waiting, 100.0)) in chosen
    sent = {call.item.digest: call.item for call in chosen}
    assert len(sent) <= CAPS.max_inputs
    assert sum(one.tokens for one in sent.values()) <= CAPS.aim
    assert len(set(map(id, chosen))) == len(chosen)
    for call in calls:
        if call not in chosen and len(sent) < CAPS.max_inputs:
            room = CAPS.aim - sum(one.tokens for one in sent.values())
            assert call.item.tokens > room, "who would have fitted is not left behind"


@given(queues())
async def test_everybody_is_chosen_in_the_end(rows: list[tuple[str, Priority, float]]) -> None:
    left, rounds = _calls(rows), 0
    while left:
        gone = set(map(id, choose(left, CAPS, 100.0)))
        left = [call for call in left if id(call) not in gone]
        rounds += 1
    assert rounds <= len(rows)


async def test_a_call_for_the_same_text_rides_along() -> None:
    calls = _calls([("a" * 20, NORMAL, 0), ("b", NORMAL, 0), ("a" * 20, BULK, 0)])
    assert choose(calls, CAPS, 1.0) == [calls[0], calls[2]]


async def test_a_text_larger_than_the_aim_goes_alone() -> None:
    caps = RequestCaps(max_inputs=4, max_input_tokens=20, target_tokens=5)
    calls = _calls([("a" * 12, NORMAL, 0), ("b", NORMAL, 0)])
    assert choose(calls, caps, 1.0) == [calls[0]]


# --- requests ----------------------------------------------------------------------------------


async def test_callers_within_the_wait_share_a_request(
    batcher: MicroBatcher, provider: Provider, clock: HandClock
) -> None:
    calls = {text: ask(batcher, text) for text in ("a", "b", "c")}
    await turns()
    assert provider.calls == []
    clock.advance(WAIT)
    for text, call in calls.items():
        assert is_right(text, await call)
    assert provider.calls == [("a", "b", "c")]


async def test_a_full_request_goes_at_once(batcher: MicroBatcher, provider: Provider) -> None:
    await asyncio.gather(*(ask(batcher, text) for text in "abcd"))
    assert provider.calls == [("a", "b", "c", "d")]


async def test_a_request_full_of_tokens_goes_at_once(
    batcher: MicroBatcher, provider: Provider
) -> None:
    await asyncio.gather(ask(batcher, "a" * 15), ask(batcher, "b" * 5))
    assert provider.calls == [("a" * 15, "b" * 5)]


async def test_what_did_not_fit_goes_with_the_next(
    batcher: MicroBatcher, provider: Provider, clock: HandClock
) -> None:
    calls = [ask(batcher, text) for text in ("a" * 15, "b" * 6, "c")]
    await turns()
    clock.advance(WAIT)
    await asyncio.gather(*calls)
    assert sorted(provider.calls) == [("a" * 15,), ("b" * 6, "c")]


async def test_the_wait_begins_anew_after_a_full_request(
    batcher: MicroBatcher, provider: Provider, clock: HandClock
) -> None:
    early = ask(batcher, "a")
    await turns()
    clock.advance(WAIT - 0.5)
    await asyncio.gather(early, *(ask(batcher, text) for text in "bcd"))
    late = ask(batcher, "e")
    await turns()
    clock.advance(0.6)
    await turns()
    assert len(provider.calls) == 1
    clock.advance(WAIT)
    await late
    assert provider.calls[1:] == [("e",)]


async def test_a_text_held_in_memory_is_no_call(batcher: MicroBatcher, provider: Provider) -> None:
    await asyncio.gather(*(ask(batcher, text) for text in "abcd"))
    again = await ask(batcher, "a")
    assert is_right("a", again)
    assert not again.flags.writeable
    assert len(provider.calls) == 1


async def test_a_stored_text_is_read_without_a_call(
    batcher: MicroBatcher,
    provider: Provider,
    clock: HandClock,
    store: Store,
) -> None:
    await asyncio.gather(*(ask(batcher, text) for text in "abcd"))
    forgetful = MicroBatcher(
        open_fetcher(store, provider, clock), MemoryTier(0, WIDTH), CAPS, 0.0, clock
    )
    assert is_right("b", await ask(forgetful, "b"))
    assert len(provider.calls) == 1


async def test_a_text_whose_request_is_out_is_waited_for_and_not_sent_again(
    batcher: MicroBatcher, provider: Provider, store: Store
) -> None:
    provider.gate = asyncio.Event()
    first = [ask(batcher, text) for text in "abcd"]
    await provider.reached()
    late = ask(batcher, "a")
    await turns()
    provider.gate.set()
    assert is_right("a", await late)
    await asyncio.gather(*first)
    assert provider.calls == [("a", "b", "c", "d")]
    assert (await store.read(read_books)).requests == 1


# --- callers that fail, give up, or are too many -----------------------------------------------


async def test_a_refused_text_fails_its_own_callers_alone(
    batcher: MicroBatcher, provider: Provider
) -> None:
    provider.poison = lambda text: text == "b"
    calls = [ask(batcher, text) for text in "abcd"]
    for text, call in zip("acd", [calls[0], *calls[2:]], strict=True):
        assert is_right(text, await call)
    with pytest.raises(TextRefused, match="refused_by_provider") as caught:
        await calls[1]
    assert caught.value.reason == "refused_by_provider"


async def test_a_provider_that_stops_fails_who_got_nothing_and_the_next_call_is_new(
    batcher: MicroBatcher, provider: Provider
) -> None:
    refused = InputRefused("refused", fault())
    provider.script = {0: refused, 2: KeyExhausted("no quota", fault())}
    ends = await asyncio.gather(*(ask(batcher, text) for text in "abcd"), return_exceptions=True)
    assert is_right("a", ends[0])  # type: ignore[arg-type]
    assert is_right("b", ends[1])  # type: ignore[arg-type]
    assert isinstance(ends[2], KeyExhausted)
    assert isinstance(ends[3], KeyExhausted)
    again = await asyncio.gather(*(ask(batcher, text) for text in "cdef"))
    assert is_right("c", again[0])


async def test_a_caller_who_gives_up_before_the_request_left_is_not_in_it(
    batcher: MicroBatcher, provider: Provider, clock: HandClock
) -> None:
    stays, leaves = ask(batcher, "stays"), ask(batcher, "leaves")
    await turns()
    leaves.cancel()
    await turns()
    clock.advance(WAIT)
    assert is_right("stays", await stays)
    assert provider.calls == [("stays",)]


async def test_a_caller_who_gives_up_while_it_is_out_hurts_nobody(
    batcher: MicroBatcher, provider: Provider, memory: MemoryTier
) -> None:
    provider.gate = asyncio.Event()
    calls = [ask(batcher, text) for text in "abcd"]
    await provider.reached()
    calls[0].cancel()
    await turns()
    provider.gate.set()
    for text, call in zip("bcd", calls[1:], strict=True):
        assert is_right(text, await call)
    assert memory.get(item("a").digest) is not None, "it was paid for, so it is kept"


async def test_when_all_give_up_who_comes_after_them_is_served_all_the_same(
    batcher: MicroBatcher, provider: Provider, clock: HandClock
) -> None:
    first = [ask(batcher, text) for text in "abcd"]
    await asyncio.sleep(0)  # they are queued, and their request is about to leave
    for call in first:
        call.cancel()
    late = ask(batcher, "a")
    await turns()
    clock.advance(WAIT)
    assert is_right("a", await late)


async def test_too_many_callers_wait_for_room_and_are_told_in_the_end(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    fetcher = open_fetcher(store, provider, clock)
    batcher = MicroBatcher(
        fetcher, MemoryTier(0, WIDTH), CAPS, WAIT, clock, max_waiting=4, patience_seconds=0.02
    )
    provider.gate = asyncio.Event()
    inside = [ask(batcher, text) for text in "abcd"]
    await provider.reached()
    with pytest.raises(Overloaded, match="4 texts have been waited for without room"):
        await ask(batcher, "e")
    provider.gate.set()
    await asyncio.gather(*inside)
    last = ask(batcher, "e")
    await turns()
    clock.advance(WAIT)
    assert is_right("e", await last)


# --- the end -----------------------------------------------------------------------------------


async def test_closing_serves_who_waits_and_refuses_who_comes(
    batcher: MicroBatcher, provider: Provider
) -> None:
    waiting = [ask(batcher, text) for text in "ab"]
    await turns()
    await batcher.close()
    for text, call in zip("ab", waiting, strict=True):
        assert is_right(text, await call)
    with pytest.raises(ServiceClosed):
        await ask(batcher, "c")
    assert provider.calls == [("a", "b")]


async def test_closing_refuses_in_the_end_who_cannot_be_served(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    fetcher = open_fetcher(store, provider, clock)
    batcher = MicroBatcher(
        fetcher, MemoryTier(0, WIDTH), CAPS, WAIT, clock, max_waiting=2, patience_seconds=0.5
    )
    provider.gate = asyncio.Event()
    calls = [ask(batcher, text) for text in "abc"]
    await turns()
    await batcher.close()
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(end, (ServiceClosed, Overloaded)) for end in ends)
    books = await store.read(read_books)
    assert (books.unknown, books.flights, books.claims) == (2, 0, 0)


async def test_a_bug_on_the_way_reaches_every_caller(
    batcher: MicroBatcher, provider: Provider, tmp_path: Path
) -> None:
    provider.script = {0: LookupError("a bug")}
    ends = await asyncio.gather(*(ask(batcher, text) for text in "abcd"), return_exceptions=True)
    assert all(isinstance(end, LookupError) for end in ends)
