"""Money is taken before a request, from every budget at once, and what it cannot buy waits."""

import asyncio
from datetime import UTC
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.embedders.retrying import Retrying
from embedding_pipeline.errors import BudgetExceeded, InvalidReply, TransientProviderError
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.ledger.config import BudgetConfig
from embedding_pipeline.ledger.standing import Standing
from embedding_pipeline.records import Account, EmbeddingResult, Usage, digest_of
from embedding_pipeline.service.flying import Books
from embedding_pipeline.service.retiring import retire
from embedding_pipeline.service.work import Item, Landing
from embedding_pipeline.state import owners, schema
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import (
    PRICE,
    HandClock,
    Provider,
    fault,
    item,
    items,
    open_fetcher,
    open_service,
)
from embedding_pipeline_tests.service.landings import books_of, collect

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _long_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses pass at once here, so that who waits for long would see others' leases run out."""
    monkeypatch.setattr(owners, "LEASE_SECONDS", 10**9)


OTHER = Account("other", "", "2026-01-01")
TOKEN = PRICE / 1e9
"""What a token, which is a character here, costs in dollars."""


def budgets(**tokens: int) -> Budgets:
    """Limits in tokens, by scope: ``all``, ``project_x``, each for a day."""
    configs = tuple(
        BudgetConfig(scope=scope.replace("_", ":"), period="day", limit_usd=limit * TOKEN)
        for scope, limit in tokens.items()
    )
    return Budgets(configs, UTC)


async def standing(store: Store, of: Budgets, clock: Clock) -> Standing:
    (first, *_) = await store.read(lambda c: of.standings(c, int(clock.now() * 1000)))
    return first


def reservations(connection: Connection) -> int:
    rows = select(func.count()).select_from(schema.reservations)
    return int(connection.scalar(rows) or 0)


def deferred(landings: list[Landing]) -> list[bytes]:
    return [digest for landing in landings for digest in landing.deferred]


def of_other(text: str) -> Item:
    return item(text, OTHER)


async def test_a_request_shrinks_to_what_fits_and_the_rest_is_left_for_later(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    limit = budgets(all=12)
    fetcher = open_fetcher(store, provider, clock, budgets=limit)
    landings = await collect(fetcher, items("aaaaa", "bbbbbb", "cc", "d"))
    assert provider.calls == [("aaaaa", "bbbbbb", "d")]
    assert deferred(landings) == [digest_of("cc")]
    (why,) = landings[1].deferred.values()
    assert why.reason == "budget"
    assert "budget all (day)" in why.message
    assert "it resets at 2026-09-22 00:00 UTC" in why.message
    now = await standing(store, limit, clock)
    assert (now.spent_nano, now.reserved_nano, now.left_nano) == (12 * PRICE, 0, 0)
    assert await store.read(reservations) == 0


async def test_one_project_is_out_of_money_and_the_other_goes_on(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    fetcher = open_fetcher(store, provider, clock, budgets=budgets(project_project=3))
    landings = await collect(fetcher, [item("aaaa"), of_other("bbbb"), item("ccc")])
    assert provider.calls == [("bbbb", "ccc")]
    assert deferred(landings) == [digest_of("aaaa")]


async def test_what_others_have_reserved_is_waited_for(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    """Their bill is smaller than what was reserved, and the difference is used."""
    limit = budgets(all=10)
    provider.gate = asyncio.Event()
    one, two = (open_fetcher(store, provider, clock, budgets=limit, patience=1e9) for _ in "12")
    long = Item(digest_of("aaaa"), "aaaa", 4, 8, OTHER)  # 8 reserved, 4 billed
    first = asyncio.create_task(collect(one, [long]))
    await provider.reached()
    assert (await standing(store, limit, clock)).reserved_nano == 8 * PRICE
    second = asyncio.create_task(collect(two, items("bbb", "ccc")))
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert len(provider.calls) == 1
    provider.gate.set()
    assert deferred([*await first, *await second]) == []
    assert provider.calls[1:] == [("bbb", "ccc")]


async def test_the_wait_has_a_bound(store: Store, provider: Provider, clock: HandClock) -> None:
    limit = budgets(all=10)
    provider.gate = asyncio.Event()
    one = open_fetcher(store, provider, clock, budgets=limit)
    two = open_fetcher(store, provider, clock, budgets=limit, patience=3.0)
    first = asyncio.create_task(collect(one, items("aaaaaaaa")))
    await provider.reached()
    (late,) = await collect(two, items("bbbb"))
    assert "reserved by other requests" in late.deferred[digest_of("bbbb")].message
    provider.gate.set()
    await first


def retrying(provider: Embedder, clock: Clock) -> Embedder:
    import random

    return Retrying(provider, RetryConfig(), clock, random.Random(1))


async def test_a_lost_call_is_booked_before_it_is_made_again(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    limit = budgets(all=10)
    provider.script[0] = TransientProviderError("lost", fault(billed=True))
    fetcher = open_fetcher(store, retrying(provider, clock), clock, budgets=limit)
    landings = await collect(fetcher, items("aaaa"))
    assert landings[0].digests == [digest_of("aaaa")]
    books = await books_of(store)
    assert (books.settled, books.unknown, books.requests) == (4, 4, 2)
    assert (await standing(store, limit, clock)).spent_nano == 8 * PRICE


async def test_whoever_is_killed_before_it_can_give_up_a_lost_call_owes_nothing_more(
    store: Store, provider: Provider, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lost call is booked, and there is no money to repeat it: nothing is out any more."""
    killed, over = asyncio.Event(), asyncio.Event()

    async def nothing(*_: object) -> None:
        killed.set()
        await over.wait()

    monkeypatch.setattr(Books, "abandon", nothing)
    limit = budgets(all=7)
    provider.script[0] = TransientProviderError("lost", fault(billed=True))
    fetcher = open_fetcher(store, retrying(provider, clock), clock, budgets=limit)
    stuck = asyncio.create_task(collect(fetcher, items("aaaa")))
    await killed.wait()
    await store.write(lambda c: retire(c, [fetcher.terms.owner_id]))
    left = await standing(store, limit, clock)
    assert (left.spent_nano, left.reserved_nano) == (4 * PRICE, 0)
    over.set()
    await stuck


async def test_a_lost_call_is_not_made_again_without_money(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    limit = budgets(all=7)
    provider.script[0] = TransientProviderError("lost", fault(billed=True))
    fetcher = open_fetcher(store, retrying(provider, clock), clock, budgets=limit)
    landings = await collect(fetcher, items("aaaa"))
    assert deferred(landings) == [digest_of("aaaa")]
    assert len(provider.calls) == 1
    books = await books_of(store)
    assert (books.settled, books.unknown, books.requests) == (0, 4, 1)
    assert (books.flights, books.claims) == (0, 0)
    assert (await standing(store, limit, clock)).reserved_nano == 0


async def test_a_split_that_was_billed_needs_money_again(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    """Four were sent and lost; of the halves, what is left pays for one text."""
    limit = budgets(all=10)
    provider.script[0] = InvalidReply("odd", fault(billed=True))
    fetcher = open_fetcher(store, provider, clock, budgets=limit)
    landings = await collect(fetcher, items("aa", "bb", "cc", "dd"))
    assert len(deferred(landings)) == 3
    books = await books_of(store)
    assert (books.settled, books.unknown) == (2, 8)


async def test_a_bill_above_what_was_reserved_stops_everything(
    store: Store, provider: Provider, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    def dearer(result: EmbeddingResult) -> EmbeddingResult:
        return EmbeddingResult(result.vectors, Usage(99), "fake")

    provider.alter = dearer
    fetcher = open_fetcher(store, provider, clock, budgets=budgets(all=1000))
    await collect(fetcher, items("aaaa"))
    assert "billed 99 tokens" in caplog.text
    (after,) = await collect(fetcher, items("bbbb"))
    assert "nothing more is bought" in after.deferred[digest_of("bbbb")].message
    assert (await books_of(store)).settled == 99


async def test_what_a_dead_process_reserved_comes_back_less_what_it_may_have_spent(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    limit = budgets(all=10)
    provider.gate = asyncio.Event()
    dies = open_fetcher(store, provider, clock, budgets=limit)
    task = asyncio.create_task(collect(dies, items("aaaa")))
    await provider.reached()
    owner = dies.terms.owner_id
    await store.write(lambda c: retire(c, [owner]))
    now = await standing(store, limit, clock)
    assert (now.spent_nano, now.reserved_nano) == (4 * PRICE, 0)
    assert await store.read(reservations) == 0
    provider.gate.set()
    await task  # it was not dead after all: the books are put right
    now = await standing(store, limit, clock)
    assert (now.spent_nano, now.reserved_nano) == (4 * PRICE, 0)
    assert await store.read(reservations) == 0


async def test_a_turned_period_has_room_and_spending_counts_when_it_left(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    limit = budgets(all=4)
    provider.gate = asyncio.Event()
    fetcher = open_fetcher(store, provider, clock, budgets=limit)
    task = asyncio.create_task(collect(fetcher, items("aaaa")))
    await provider.reached()
    yesterday = int(clock.now() * 1000)
    clock.elapsed += 86_400
    provider.gate.set()
    await task
    spent = await store.read(lambda c: limit.standings(c, yesterday))
    assert spent[0].spent_nano == 4 * PRICE
    assert (await standing(store, limit, clock)).spent_nano == 0
    landings = await collect(fetcher, items("bbbb"))
    assert deferred(landings) == []


async def test_a_raised_limit_counts_from_the_next_open_on_and_old_spending_with_it(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    free = open_fetcher(store, provider, clock)
    await collect(free, items("aaaa"))  # before there was any budget
    low = open_fetcher(store, provider, clock, budgets=budgets(all=6))
    assert len(deferred(await collect(low, items("bbbb")))) == 1
    high = open_fetcher(store, provider, clock, budgets=budgets(all=8))
    assert deferred(await collect(high, items("bbbb"))) == []


async def test_online_callers_are_told(tmp_path: Path, provider: Provider) -> None:
    clock = HandClock(through=100.0)
    limit = budgets(project_poor=3)
    async with open_service(tmp_path, provider, clock, budgets=limit) as service:
        await service.generate_embedding("aaa", project="poor")
        with pytest.raises(BudgetExceeded, match=r"budget project:poor \(day\): .* of .* spent"):
            await service.generate_embedding("bbb", project="poor")
        await service.generate_embedding("aaa", project="poor")  # what is there costs nothing
        rich, poor = await asyncio.gather(  # one request, asked for by the one who came last
            service.generate_embedding("shared", project="rich"),
            service.generate_embedding("shared", project="poor"),
            return_exceptions=True,
        )
    assert isinstance(poor, BudgetExceeded)
    assert not isinstance(rich, BaseException)
    assert provider.billed == {"aaa": 1, "shared": 1}
