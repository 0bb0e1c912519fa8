"""Providers in order: the first that can answer does, and every call is in the books once."""

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embedding_pipeline.circuit import BreakerConfig
from embedding_pipeline.embedders.again import before_again
from embedding_pipeline.embedders.breaking import Breaking
from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.embedders.fallback import Fallback, Route, is_next_ones_turn, nobody
from embedding_pipeline.embedders.retrying import Retrying
from embedding_pipeline.embedders.stopping import Stopping
from embedding_pipeline.errors import (
    BudgetExceeded,
    CircuitOpen,
    InputRefused,
    InvalidReply,
    KeyExhausted,
    NoPermit,
    ProviderError,
    ProviderRefused,
    RateLimited,
    RequestTooLarge,
    TransientProviderError,
)
from embedding_pipeline.records import Attempt, EmbeddingResult
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.embedders.scripted import OK, Scripted, error

pytestmark = pytest.mark.anyio

Step = tuple[type[ProviderError], bool]
DOWN: Step = (TransientProviderError, True)


class Provider(Scripted):
    """Raises a new error each time, as a leaf does; ``down`` is what it raises now."""

    def __init__(self, name: str, down: Step | None = None, **fault: int) -> None:
        super().__init__([OK])
        self.name = name
        self.down = down
        self.fault: Any = fault

    async def embed(self, texts: object) -> EmbeddingResult:
        if self.down is None:
            return await super().embed(texts)  # type: ignore[arg-type]
        self.calls += 1
        kind, billed = self.down
        raise error(kind, maybe_billed=billed, code=self.name, **self.fault)


def routes(clock: FakeClock, *providers: Provider) -> Iterator[Route]:
    for provider in providers:
        stopping = Stopping(provider, clock)
        breaking = Breaking(stopping, provider.name, BreakerConfig(), clock)
        yield Route(provider.name, breaking, stopping)


def chain(clock: FakeClock, *providers: Provider, attempts: int = 8) -> Retrying:
    fallback = Fallback(list(routes(clock, *providers)))
    return Retrying(fallback, RetryConfig(max_attempts=attempts), clock, random.Random(1))


async def until(condition: Callable[[], bool]) -> None:
    """Let others go on until it holds."""
    while not condition():  # noqa: ASYNC110 - on a fake clock, a few rounds
        await asyncio.sleep(0)


async def asked(embedder: Retrying) -> tuple[EmbeddingResult, list[Attempt]]:
    """The result, and the attempts that were booked before they were repeated."""
    booked: list[Attempt] = []

    async def book(attempt: Attempt) -> None:
        booked.append(attempt)

    with before_again(book):
        return await embedder.embed(["text"]), booked


@pytest.mark.parametrize(
    ("kind", "elsewhere"),
    [
        (TransientProviderError, True),
        (CircuitOpen, True),
        (KeyExhausted, True),
        (ProviderRefused, True),
        (NoPermit, True),
        (InvalidReply, False),
        (RateLimited, False),
        (InputRefused, False),
        (RequestTooLarge, False),
    ],
)
def test_which_errors_are_another_ones_turn(kind: type[ProviderError], elsewhere: bool) -> None:
    assert is_next_ones_turn(error(kind)) is elsewhere


async def test_the_first_is_asked_as_long_as_it_answers(clock: FakeClock) -> None:
    first, second = Provider("a"), Provider("b")
    result, booked = await asked(chain(clock, first, second))
    assert (first.calls, second.calls, result.requests, booked) == (1, 0, 1, [])


async def test_the_second_is_asked_at_once_and_the_lost_call_is_booked(clock: FakeClock) -> None:
    first, second = Provider("a", DOWN), Provider("b")
    before = clock.monotonic()
    result, booked = await asked(chain(clock, first, second))
    assert clock.monotonic() == before, "nobody waited"
    assert [attempt.code for attempt in result.attempts] == ["a"]
    assert (booked, result.requests) == (list(result.attempts), 2)


async def test_an_ailing_provider_is_left_alone_probed_and_taken_again(clock: FakeClock) -> None:
    first, second = Provider("a", DOWN), Provider("b")
    embedder = chain(clock, first, second)
    for _ in range(10):
        await embedder.embed(["text"])
    opened = BreakerConfig().failures_to_open
    assert (first.calls, second.calls) == (opened, 10)
    await clock.sleep(BreakerConfig().open_seconds + 0.1)
    await embedder.embed(["text"])
    assert (first.calls, second.calls) == (opened + 1, 11), "one probe, and no harm to its request"
    first.down = None
    await clock.sleep(2 * BreakerConfig().open_seconds + 0.1)
    for _ in range(3):
        assert (await embedder.embed(["text"])).attempts == ()
    assert (first.calls, second.calls) == (opened + 4, 11)


async def test_a_refused_key_costs_one_call(clock: FakeClock) -> None:
    first, second = Provider("a", (KeyExhausted, False)), Provider("b")
    embedder = chain(clock, first, second)
    for _ in range(5):
        await embedder.embed(["text"])
    assert (first.calls, second.calls) == (1, 5)


async def test_all_down_is_retried_until_one_is_back(clock: FakeClock) -> None:
    first, second = Provider("a", DOWN), Provider("b", DOWN)
    embedder = chain(clock, first, second)
    task = asyncio.create_task(asked(embedder))
    await until(lambda: second.calls >= 3)
    second.down = None
    result, booked = await task
    calls = [attempt.code for attempt in result.attempts if attempt.error != "CircuitOpen"]
    assert result.requests == first.calls + second.calls == len(calls) + 1
    assert [attempt.code for attempt in booked] == calls


async def test_all_down_for_good_ends_with_every_call_named(clock: FakeClock) -> None:
    first, second = Provider("a", DOWN), Provider("b", DOWN)
    with pytest.raises(TransientProviderError) as caught:
        await chain(clock, first, second, attempts=3).embed(["text"])
    assert [one.code for one in caught.value.attempts] == ["a", "b"] * 3


async def test_a_wrong_key_of_the_second_does_not_end_what_the_first_may_deliver(
    clock: FakeClock,
) -> None:
    first, second = Provider("a", DOWN), Provider("b", (ProviderRefused, False), status=401)
    embedder = chain(clock, first, second)
    task = asyncio.create_task(asked(embedder))
    await until(lambda: first.calls >= 2)
    first.down = None
    result, _ = await task
    assert second.calls == 1
    assert result.requests == first.calls + 1


async def test_all_keys_refused_says_so(clock: FakeClock) -> None:
    refused = [Provider(name, (ProviderRefused, False), status=401) for name in "ab"]
    embedder = chain(clock, *refused)
    for _ in range(2):
        with pytest.raises(ProviderRefused):
            await embedder.embed(["text"])
    assert [provider.calls for provider in refused] == [1, 1]


async def test_a_text_that_is_refused_is_not_sent_elsewhere(clock: FakeClock) -> None:
    first, second = Provider("a", (InputRefused, False)), Provider("b")
    with pytest.raises(InputRefused):
        await chain(clock, first, second).embed(["text"])
    assert (first.calls, second.calls) == (1, 0)


async def test_no_money_for_the_second_ends_it_with_the_call_that_was_lost(
    clock: FakeClock,
) -> None:
    first, second = Provider("a", DOWN), Provider("b")

    async def broke(attempt: Attempt) -> None:
        raise BudgetExceeded("nothing left")

    with before_again(broke), pytest.raises(BudgetExceeded) as caught:
        await chain(clock, first, second).embed(["text"])
    assert [one.code for one in caught.value.attempts] == ["a"]
    assert second.calls == 0


async def test_cut_off_at_the_second_the_first_ones_call_is_known(clock: FakeClock) -> None:
    first, second = Provider("a", DOWN), Provider("b")
    second.gate = asyncio.Event()
    task = asyncio.create_task(chain(clock, first, second).embed(["text"]))
    await until(lambda: second.calls > 0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    known = vars(caught.value)
    assert [one.code for one in known["attempts"]] == ["a"]
    assert known["between_calls"] is False


def test_of_open_circuits_the_soonest_says_when() -> None:
    reasons = [error(CircuitOpen, 9.0), error(ProviderRefused), error(CircuitOpen, 2.0)]
    assert nobody(reasons).fault.retry_after == 2.0
    assert isinstance(nobody([error(ProviderRefused), error(KeyExhausted)]), ProviderRefused)


async def test_every_chain_is_closed(clock: FakeClock) -> None:
    first, second = Provider("a"), Provider("b")
    await chain(clock, first, second).aclose()
    assert (first.closed, second.closed) == (1, 1)
