"""Every fault the API is known for, through the real SDK: right vectors or the right error."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.errors import (
    CircuitOpen,
    InvalidReply,
    KeyExhausted,
    ProviderError,
    RateLimited,
    TransientProviderError,
)
from embedding_pipeline.records import EmbeddingResult
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.embedders.chain import served_chain
from embedding_pipeline_tests.embedders.conftest import MakeChain
from embedding_pipeline_tests.embedders.test_policy import MEANINGS
from embedding_pipeline_tests.fake_openai.faults import BILLED_WIRE, QUOTA, UNBILLED_WIRE, Fault
from embedding_pipeline_tests.fake_openai.replies import HARMLESS, REPLIES, expected_vector
from embedding_pipeline_tests.fake_openai.server import FakeOpenAI

pytestmark = pytest.mark.anyio

TEXTS = [f"text number {i}" for i in range(7)]
SHORT = 1.5
"""Deadline, where nothing would come for ever."""

LASTING = ("hang", "billed_hang", "drip")
TEMPORARY = sorted(
    kind
    for kind, error in MEANINGS.items()
    if issubclass(error, (RateLimited, TransientProviderError))
)
FINAL = sorted(MEANINGS.keys() - set(TEMPORARY))
SPOILT = sorted(REPLIES.keys() - set(HARMLESS))


def assert_right(result: EmbeddingResult, texts: list[str]) -> None:
    assert result.vectors.shape == (len(texts), 1536)
    for row, text in zip(result.vectors, texts, strict=True):
        right = expected_vector("text-embedding-3-small", text, 1536)
        assert row.tobytes() == right.tobytes()


@pytest.mark.parametrize("kind", HARMLESS)
async def test_odd_but_right(kind: str, make_chain: MakeChain, fake_openai: FakeOpenAI) -> None:
    fake_openai.fault(Fault(kind))
    result = await make_chain().embed(TEXTS)
    assert_right(result, TEXTS)
    assert result.attempts == ()


@pytest.mark.parametrize("kind", [*SPOILT, *TEMPORARY, *UNBILLED_WIRE, *BILLED_WIRE])
async def test_once_costs_one_more_request(
    kind: str, make_chain: MakeChain, fake_openai: FakeOpenAI
) -> None:
    fake_openai.fault(Fault(kind, next=1))
    chain = make_chain(timeout_seconds=SHORT if kind in LASTING else 300)
    result = await chain.embed(TEXTS)
    assert_right(result, TEXTS)
    assert result.requests == fake_openai.books.requests == 2
    assert len(result.attempts) == 1
    billed_for_nothing = fake_openai.books.billed_requests - 1
    assert result.attempts[0].maybe_billed >= billed_for_nothing


@pytest.mark.parametrize("kind", SPOILT)
async def test_always_spoilt_is_never_a_vector(
    kind: str, make_chain: MakeChain, fake_openai: FakeOpenAI
) -> None:
    fake_openai.fault(Fault(kind))
    with pytest.raises(InvalidReply) as caught:
        await make_chain().embed(TEXTS)
    assert len(caught.value.attempts) == fake_openai.books.requests
    assert all(attempt.maybe_billed for attempt in caught.value.attempts)


@pytest.mark.parametrize("kind", FINAL)
async def test_final_is_one_request(
    kind: str, make_chain: MakeChain, fake_openai: FakeOpenAI
) -> None:
    fake_openai.fault(Fault(kind))
    with pytest.raises(MEANINGS[kind]) as caught:
        await make_chain().embed(TEXTS)
    assert type(caught.value) is MEANINGS[kind]
    assert fake_openai.books.requests == 1
    assert len(caught.value.attempts) == 1


@pytest.mark.parametrize("kind", [*TEMPORARY, *UNBILLED_WIRE, *BILLED_WIRE])
async def test_for_ever_ends_by_attempts_or_time(
    kind: str, make_chain: MakeChain, fake_openai: FakeOpenAI, clock: FakeClock
) -> None:
    fake_openai.fault(Fault(kind))
    retry = RetryConfig(max_attempts=3, max_seconds=120)
    with pytest.raises((MEANINGS.get(kind, TransientProviderError), CircuitOpen)):
        await make_chain(retry, timeout_seconds=0.1 if kind in LASTING else 300).embed(TEXTS)
    assert clock.elapsed <= 120
    assert fake_openai.books.requests >= 3


@pytest.mark.parametrize("kind", ["429_requests", "429_tokens", "503_overloaded", "500"])
async def test_the_server_says_how_long_to_wait(
    kind: str, make_chain: MakeChain, fake_openai: FakeOpenAI, clock: FakeClock
) -> None:
    fake_openai.fault(Fault(kind, next=1, retry_after=21.5))
    result = await make_chain().embed(TEXTS)
    assert 21.5 <= clock.elapsed <= 43
    assert result.attempts[0].waited_seconds == clock.elapsed


async def test_a_named_input_is_passed_on(make_chain: MakeChain, fake_openai: FakeOpenAI) -> None:
    fake_openai.fault(Fault("400_input_index", marker="POISON"))
    texts = [*TEXTS[:4], "a POISON text", *TEXTS[4:]]
    with pytest.raises(ProviderError) as caught:
        await make_chain().embed(texts)
    assert caught.value.fault.input_index == 4
    assert_right(await make_chain().embed(TEXTS), TEXTS)


@pytest.mark.parametrize("code", QUOTA)
async def test_an_empty_account_is_asked_once(
    code: str, make_chain: MakeChain, fake_openai: FakeOpenAI
) -> None:
    fake_openai.fault(Fault(f"429_{code}"))
    chain = make_chain()
    calls = [chain.embed([text]) for text in TEXTS * 5]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(item) for item in found} == {KeyExhausted}
    assert fake_openai.books.requests == 1


async def test_real_limits_ask_for_more_time_than_there_is(
    make_chain: MakeChain, fake_openai: FakeOpenAI
) -> None:
    fake_openai.limit(rpm=3)
    chain = make_chain()
    results = await asyncio.gather(*[chain.embed([f"{i}"]) for i in range(3)])
    for i, result in enumerate(results):
        assert_right(result, [f"{i}"])
    with pytest.raises(RateLimited):
        await make_chain(RetryConfig(max_seconds=15)).embed(["one too many"])
    assert fake_openai.books.statuses["429"] == 1


RATES = st.fixed_dictionaries(
    {},
    optional={
        kind: st.floats(0.05, 0.4)
        for kind in [
            "reversed",
            "missing",
            "nan",
            "wrong_model",
            "truncated_json",
            "500",
            "502_html",
            "429_tokens",
            "503_overloaded",
            "reset",
            "billed_reset",
            "short_length",
            "zero_usage",
        ]
    },
)


@settings(max_examples=25)
@given(RATES, st.integers(0, 2**16))
def test_any_schedule_gives_right_vectors_or_a_named_error(
    rates: dict[str, float], seed: int
) -> None:
    """Concurrent requests under a random mixture of faults; the books hold every billing."""

    async def run() -> None:
        async with served_chain(seed) as (chain, fake):
            fake.fault(*[Fault(kind, rate=rate) for kind, rate in rates.items()], seed=seed)
            groups = [[f"{seed} {group} {i}" for i in range(5)] for group in range(6)]
            calls = [chain.embed(group) for group in groups]
            found = await asyncio.gather(*calls, return_exceptions=True)
            suspected = 0
            for group, item in zip(groups, found, strict=True):
                assert isinstance(item, (EmbeddingResult, TransientProviderError, RateLimited))
                suspected += sum(attempt.maybe_billed for attempt in item.attempts)
                if isinstance(item, EmbeddingResult):
                    assert_right(item, group)
            delivered = sum(isinstance(item, EmbeddingResult) for item in found)
            assert fake.books.billed_requests <= delivered + suspected

    asyncio.run(run())


def test_vectors_of_different_texts_differ() -> None:
    """What the assertions above stand on."""
    one, other = (expected_vector("text-embedding-3-small", text, 1536) for text in TEXTS[:2])
    assert not np.allclose(one, other)
