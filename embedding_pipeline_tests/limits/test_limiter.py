"""The limiter of one process, at a store in memory and in virtual time."""

import asyncio

import pytest

from embedding_pipeline.errors import NoPermit, StateError
from embedding_pipeline.limits.callers import Caller, Tenants, current_caller, on_behalf_of
from embedding_pipeline.limits.config import TenantConfig
from embedding_pipeline.limits.limiter import Limiter
from embedding_pipeline.limits.protocol import Answer, Ask, News, Terms
from embedding_pipeline.records import Priority
from embedding_pipeline_tests.limits.simulation import MemoryLimits, VirtualClock, in_no_time

TERMS = Terms(tokens=60_000, requests=6_000, burst=10_000, reserve=0)
BULK = Caller("p", Priority.BULK)


def _limiter(store: MemoryLimits, clock: VirtualClock, max_wait: float = 900.0) -> Limiter:
    return Limiter(store, "k", "fake", TERMS, clock, max_wait_seconds=max_wait)


def test_a_permit_that_is_there_is_had_at_once() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        limiter = _limiter(MemoryLimits(clock), clock)
        permit = await limiter.acquire(10_000, BULK)
        assert permit.waited == 0
        late = await limiter.acquire(1_000, BULK)
        assert late.waited == pytest.approx(1.0, abs=0.01)
        tally = limiter.tallies[2, "p"]
        assert (tally.permits, tally.tokens) == (2, 11_000)

    in_no_time(scene())


def test_the_wait_has_a_bound_and_the_error_says_who_is_ahead() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        store = MemoryLimits(clock)
        other, mine = _limiter(store, clock), _limiter(store, clock, max_wait=5)
        await other.acquire(10_000, BULK)
        ahead = asyncio.create_task(other.acquire(10_000, Caller("greedy", Priority.URGENT)))
        await asyncio.sleep(0.1)
        with pytest.raises(NoPermit, match=r"within 5 s.*1 requests \(10,000 tokens\).*greedy"):
            await mine.acquire(1_000, BULK)
        assert clock.monotonic() < 7
        await ahead

    in_no_time(scene())


def test_who_stops_waiting_takes_nothing_and_is_no_longer_ahead() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        store = MemoryLimits(clock)
        other, mine = _limiter(store, clock), _limiter(store, clock)
        await other.acquire(10_000, BULK)
        task = asyncio.create_task(other.acquire(10_000, BULK))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        permit = await mine.acquire(1_000, BULK)
        assert permit.waited < 1.1, "10 s if the one who left still stood in line"

    in_no_time(scene())


def test_what_was_not_used_is_given_back() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        limiter = _limiter(MemoryLimits(clock), clock)
        limiter.give_back(await limiter.acquire(10_000, BULK))
        assert (await limiter.acquire(10_000, BULK)).waited == 0

    in_no_time(scene())


def test_a_store_that_fails_is_no_permit_and_the_next_call_tries_again() -> None:
    class Failing(MemoryLimits):
        broken = True

        async def exchange(self, key: str, terms: Terms, ask: Ask) -> Answer:
            if self.broken:
                raise StateError("the disk is full; free space")
            return await super().exchange(key, terms, ask)

    async def scene() -> None:
        clock = VirtualClock()
        store = Failing(clock)
        limiter = _limiter(store, clock)
        with pytest.raises(NoPermit, match=r"fake.*disk is full"):
            await limiter.acquire(1, BULK)
        store.broken = False
        assert (await limiter.acquire(1, BULK)).tokens == 1

    in_no_time(scene())


def test_news_that_cannot_be_told_do_not_fail_who_came_meanwhile() -> None:
    class FailingToHear(MemoryLimits):
        """Nobody is listened to who only tells; who asks meanwhile comes while it fails."""

        async def exchange(self, key: str, terms: Terms, ask: Ask) -> Answer:
            if not ask.wants:
                await asyncio.sleep(1)
                raise StateError("the server is away")
            return await super().exchange(key, terms, ask)

    async def scene() -> None:
        clock = VirtualClock()
        limiter = _limiter(FailingToHear(clock), clock)
        limiter.give_back(await limiter.acquire(1_000, BULK))
        await asyncio.sleep(0.5)
        assert (await limiter.acquire(1_000, BULK)).tokens == 1_000

    in_no_time(scene())


def test_closing_tells_the_last_news_and_leaves_nothing_behind() -> None:
    async def scene() -> None:
        clock = VirtualClock()
        store = MemoryLimits(clock)
        limiter = _limiter(store, clock)
        permit = await limiter.acquire(100, BULK)
        limiter.settle(permit, News("ok", limits=(50_000, 5_000)))
        await limiter.aclose()
        await limiter.aclose()
        assert store.kept["k"].clients == {}
        assert store.kept["k"].tokens.limit == 50_000

    in_no_time(scene())


def test_a_tenants_priority_counts_where_the_call_names_none() -> None:
    tenants = Tenants((TenantConfig(project="a", weight=2.5, priority="bulk"),))
    assert tenants.priority(Caller("a")) is Priority.BULK
    assert tenants.priority(Caller("a", Priority.URGENT)) is Priority.URGENT
    assert tenants.priority(Caller("b")) is Priority.NORMAL
    assert (tenants.weight("a"), tenants.weight("b")) == (2500, 1000)


@pytest.mark.parametrize(
    ("awaiting", "permits", "unsent"), [(False, 0, False), (True, 0, True), (True, 1, False)]
)
def test_a_request_that_waits_for_its_first_permit_was_not_sent(
    awaiting: bool, permits: int, unsent: bool
) -> None:
    with on_behalf_of("a", Priority.BULK) as caller:
        caller.awaiting, caller.permits = awaiting, permits
        assert current_caller().unsent == unsent
