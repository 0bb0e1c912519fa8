"""A group of keys until each has its vector or its refusal: paid once, booked once."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from embedding_pipeline.embedders.fake import fake_vectors
from embedding_pipeline.errors import (
    CircuitOpen,
    InvalidReply,
    KeyExhausted,
    NoPermit,
    ProviderError,
    StateError,
    TransientProviderError,
)
from embedding_pipeline.records import Account, Attempt, digest_of
from embedding_pipeline.service.fetching import HOPELESS, Fetcher
from embedding_pipeline.service.work import Landing
from embedding_pipeline.state import schema
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import (
    ACCOUNT,
    Books,
    HandClock,
    Provider,
    fault,
    item,
    items,
    open_fetcher,
    right,
)
from embedding_pipeline_tests.service.landings import TEXTS, TOKENS, books_of, collect, texts_of
from embedding_pipeline_tests.stores import another, open_store

pytestmark = pytest.mark.anyio


async def test_what_is_missing_is_bought_once_and_stored_and_booked(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    (landing,) = await collect(fetcher, items(*TEXTS))
    assert landing.bought
    assert right(landing, TEXTS)
    assert landing.billed == {ACCOUNT: TOKENS}
    (again,) = await collect(fetcher, items(*TEXTS))
    assert not again.bought
    assert right(again, TEXTS)
    assert len(provider.calls) == 1
    books = await books_of(store)
    assert books == Books(TOKENS, 0, 1, 0, 0, 1, 5)


async def test_a_text_asked_for_twice_in_one_group_is_sent_once(
    fetcher: Fetcher, provider: Provider
) -> None:
    await collect(fetcher, items("a", "b", "a"))
    assert provider.calls == [("a", "b")]


async def test_two_fetchers_on_two_stores_buy_a_text_once(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    with another(store) as other:
        provider.gate = asyncio.Event()
        one, two = open_fetcher(store, provider, clock), open_fetcher(other, provider, clock)
        first = asyncio.create_task(collect(one, items(*TEXTS[:3])))
        await provider.reached()
        second = asyncio.create_task(collect(two, items(*TEXTS[1:])))
        await provider.reached(2)
        provider.gate.set()
        landings = [*await first, *await second]
    assert provider.calls == [tuple(TEXTS[:3]), tuple(TEXTS[3:])]
    assert texts_of(landings, TEXTS) == sorted([*TEXTS, *TEXTS[1:3]])
    assert all(right(landing, TEXTS) for landing in landings)
    assert await books_of(store) == Books(TOKENS, 0, 2, 0, 0, 2, 5)


async def test_waiting_for_another_process_has_an_end(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    provider.gate = asyncio.Event()
    first = asyncio.create_task(collect(open_fetcher(store, provider, clock), items("a")))
    await provider.reached()
    second = open_fetcher(store, provider, clock, patience=3.0)
    with pytest.raises(StateError, match="for over 3 s; end it, or run again later"):
        await collect(second, items("a"))
    provider.gate.set()
    await first


async def test_a_damaged_entry_is_bought_again(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    await collect(fetcher, items("a", "b"))
    bad = update(schema.vectors).where(schema.vectors.c.digest == digest_of("a"))
    await store.write(lambda c: c.execute(bad.values(value=b"damaged")))
    landings = await collect(fetcher, items("a", "b"))
    assert texts_of(landings, ["a", "b"]) == ["a", "b"]
    assert all(right(landing, ["a", "b"]) for landing in landings)
    assert provider.calls == [("a", "b"), ("a",)]


def _refusing(error: type[ProviderError]) -> Callable[[object], ProviderError]:
    return lambda found: error("refused", found)  # type: ignore[arg-type]


@settings(max_examples=20)
@given(bad=st.sets(st.integers(0, 15)), named=st.booleans())
async def test_bad_texts_cost_themselves_alone(
    tmp_path_factory: pytest.TempPathFactory, bad: set[int], named: bool
) -> None:
    texts = [f"text {n}" for n in range(16)]
    poisoned = {texts[n] for n in bad}
    provider, clock = Provider(), HandClock(through=1.0)
    provider.poison, provider.names_index = poisoned.__contains__, named
    with open_store(tmp_path_factory.mktemp("state")) as store:
        (landing,) = await collect(open_fetcher(store, provider, clock), items(*texts))
        books = await books_of(store)
    good = [text for text in texts if text not in poisoned]
    assert set(landing.refused) == {digest_of(text) for text in poisoned}
    assert {why.reason for why in landing.refused.values()} <= {"refused_by_provider"}
    assert texts_of([landing], texts) == sorted(good)
    assert right(landing, texts)
    assert landing.requests == len(provider.calls)
    tokens = sum(map(len, good))
    assert books == Books(tokens, 0, len(provider.calls), 0, 0, 1, len(good))
    assert set(provider.billed.values()) <= {1}


async def test_hundreds_refused_by_name_are_a_loop_not_a_recursion(
    fetcher: Fetcher, provider: Provider
) -> None:
    texts = [str(n) for n in range(800)]
    provider.poison, provider.names_index = (lambda text: text != "799"), True
    (landing,) = await collect(fetcher, items(*texts))
    assert len(landing.refused) == 799
    assert texts_of([landing], texts) == ["799"]


async def test_a_provider_that_only_answers_nonsense_is_not_paid_for_every_text(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    provider.poison, provider.refuse = (lambda _: True), _refusing(InvalidReply)
    landings: list[Landing] = []
    with pytest.raises(InvalidReply, match="it is not the texts"):
        await collect(fetcher, items(*map(str, range(200))), landings)
    assert len(provider.calls) < 8 + 2 * HOPELESS
    books = await books_of(store)
    assert (books.flights, books.claims, books.vectors) == (0, 0, 0)
    assert books.requests == len(provider.calls)


async def test_a_few_texts_with_nonsense_for_an_answer_are_searched_to_the_end(
    fetcher: Fetcher, provider: Provider
) -> None:
    provider.poison, provider.refuse = (lambda _: True), _refusing(InvalidReply)
    (landing,) = await collect(fetcher, items(*map(str, range(4 * HOPELESS - 1))))
    assert {why.reason for why in landing.refused.values()} == {"invalid_reply"}
    assert len(landing.refused) == 4 * HOPELESS - 1


async def test_what_landed_before_the_provider_stopped_is_handed_out(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    provider.poison = lambda text: text == "epsilon"
    provider.script = {2: KeyExhausted("no quota", fault())}
    landings: list[Landing] = []
    with pytest.raises(KeyExhausted):
        await collect(fetcher, items(*TEXTS), landings)
    assert texts_of(landings, TEXTS) == ["alpha", "beta", "gamma"]
    assert await books_of(store) == Books(14, 0, 3, 0, 0, 1, 3)


def _with_attempts(error: ProviderError, *attempts: Attempt) -> ProviderError:
    error.attempts = attempts
    return error


LOST = Attempt("fake", "TransientProviderError", "500", 1.5, maybe_billed=True)
CLEAN = Attempt("fake", "RateLimited", "429", 2.0)
OPEN = Attempt("fake", CircuitOpen.__name__, "", 3.0)


@pytest.mark.parametrize(
    ("error", "unknown", "requests"),
    [
        (TransientProviderError("x", fault()), 0, 1),
        (TransientProviderError("x", fault(billed=True)), 1, 1),
        (_with_attempts(TransientProviderError("x", fault(billed=True)), LOST, CLEAN, LOST), 2, 3),
        (_with_attempts(CircuitOpen("x", fault()), LOST, OPEN, OPEN), 1, 1),
        (CircuitOpen("x", fault()), 0, 0),
        (NoPermit("x", fault()), 0, 0),
        (LookupError("a bug"), 1, 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_every_attempt_that_may_have_been_billed_is_booked_as_unknown(
    fetcher: Fetcher,
    store: Store,
    provider: Provider,
    error: Exception,
    unknown: int,
    requests: int,
) -> None:
    provider.script = {0: error}
    with pytest.raises(type(error)):
        await collect(fetcher, items(*TEXTS))
    assert await books_of(store) == Books(0, unknown * TOKENS, requests, 0, 0, 1, 0)


async def test_attempts_before_a_delivery_are_booked_with_it(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    provider.alter = lambda result: replace(result, requests=3, attempts=(LOST, CLEAN))
    (landing,) = await collect(fetcher, items(*TEXTS))
    assert (landing.requests, landing.wait_seconds) == (3, 3.5)
    books = await books_of(store)
    assert (books.settled, books.unknown, books.requests) == (TOKENS, TOKENS, 3)
    waits = await store.read(lambda c: sum(c.scalars(select(schema.ledger.c.wait_ms))))
    assert waits == 3500


async def test_refused_requests_are_booked_as_calls_though_they_cost_nothing(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    provider.poison = lambda _: True
    (landing,) = await collect(fetcher, items("a", "b"))
    assert len(landing.refused) == 2
    assert await books_of(store) == Books(0, 0, 3, 0, 0, 1, 0)


async def test_the_bill_is_divided_among_those_it_was_for(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    ann, bob = Account("ann", "u", "d"), Account("bob", "", "d")
    (landing,) = await collect(fetcher, [item("aaaa", ann), item("bb", bob), item("ccc", ann)])
    assert landing.billed == {ann: 7, bob: 2}
    paid = await store.read(
        lambda c: {
            bytes(digest): project
            for digest, project in c.execute(
                select(schema.vectors.c.digest, schema.ledger.c.project).join(
                    schema.ledger, schema.ledger.c.id == schema.vectors.c.entry_id
                )
            )
        }
    )
    assert paid == {digest_of("aaaa"): "ann", digest_of("ccc"): "ann", digest_of("bb"): "bob"}


@pytest.mark.parametrize("shape", [(4, 8), (5, 7), (0, 8)])
async def test_a_matrix_of_another_shape_is_never_stored(
    fetcher: Fetcher, store: Store, provider: Provider, shape: tuple[int, int]
) -> None:
    vectors = fake_vectors("hash", TEXTS, shape[1])[: shape[0]]
    provider.alter = lambda result: replace(result, vectors=vectors)
    (landing,) = await collect(fetcher, items(*TEXTS))
    assert {why.reason for why in landing.refused.values()} == {"invalid_reply"}
    books = await books_of(store)
    assert (books.vectors, books.settled) == (0, 0)
    assert books.unknown >= TOKENS, "the provider may have charged for every one of them"
