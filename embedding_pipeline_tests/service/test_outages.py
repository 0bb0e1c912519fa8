"""An outage in mid-run: what is there is kept, the rest is deferred, and nothing is paid twice."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.errors import (
    CircuitOpen,
    EmbeddingPipelineError,
    InvalidReply,
    KeyExhausted,
    NoPermit,
    ProviderRefused,
    RateLimited,
    ServiceClosed,
    TransientProviderError,
)
from embedding_pipeline.service.outages import no_outage, outage_of
from embedding_pipeline.service.work import FilledBatch, Row
from embedding_pipeline_tests.service.harness import (
    HandClock,
    Provider,
    fault,
    open_service,
    read_books,
)
from embedding_pipeline_tests.service.streams import DAYS, batch, drain, stream

pytestmark = pytest.mark.anyio

TEXTS = [f"text {number:03}" for number in range(60)]
BATCHES = [batch(TEXTS[start : start + 15], start, DAYS[start // 30]) for start in (0, 15, 30, 45)]


@pytest.mark.parametrize(
    ("kind", "outage"),
    [
        (TransientProviderError, True),
        (CircuitOpen, True),
        (RateLimited, True),
        (KeyExhausted, True),
        (InvalidReply, False),
        (ProviderRefused, False),
        (NoPermit, False),
    ],
)
def test_what_is_an_outage(kind: type, outage: bool) -> None:
    error: EmbeddingPipelineError = kind("something", fault())
    found = outage_of(error)
    assert (found is not None) is outage
    assert no_outage(error) is None
    if found is not None:
        assert found.reason == "outage"


def test_the_end_of_the_service_is_no_outage() -> None:
    assert outage_of(ServiceClosed("closed")) is None
    assert outage_of(KeyboardInterrupt()) is None


async def embedded(
    folder: Path, provider: Provider, *, defers: bool = True, may: bool = True
) -> list[FilledBatch]:
    clock = HandClock(through=100.0)
    async with open_service(folder, provider, clock, defers_outages=defers) as service:
        run = service.bulk(stream(BATCHES), may_defer=may)
        filled = await drain(run)
        for tally in run.tallies.values():
            decided = tally.embedded + tally.cached + tally.quarantined + tally.deferred
            assert tally.chunks == decided
        assert sum(tally.deferred for tally in run.tallies.values()) == sum(
            len(one.deferred) for one in filled
        )
        books = await service.store.read(read_books)
    assert (books.flights, books.claims) == (0, 0)
    assert books.settled == provider.tokens
    return filled


def out_from(provider: Provider, first: int, calls: int = 1000) -> None:
    for number in range(first, first + calls):
        provider.script[number] = TransientProviderError("out", fault())


@settings(max_examples=12, deadline=None)
@given(first=st.integers(0, 6), poison=st.sets(st.sampled_from(TEXTS), max_size=2))
async def test_whenever_it_comes_the_books_balance_and_the_next_run_ends_it(
    first: int, poison: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, provider = tmp_path_factory.mktemp("outage"), Provider()
    provider.poison = poison.__contains__
    out_from(provider, first)
    filled = await embedded(folder, provider)
    ends = [Row(status) for one in filled for status in one.status]
    assert len(ends) == len(TEXTS)
    assert set(ends) <= {Row.EMBEDDED, Row.DEFERRED, Row.REFUSED}
    assert Row.DEFERRED in ends
    for one in filled:
        assert (one.vectors[one.status == Row.DEFERRED] == 0).all()
        assert {why.reason for why in one.deferred.values()} <= {"outage"}
    provider.script.clear()
    again = [Row(status) for one in await embedded(folder, provider) for status in one.status]
    assert again.count(Row.REFUSED) == len(poison)
    assert again.count(Row.DEFERRED) == 0
    assert provider.billed == dict.fromkeys(set(TEXTS) - poison, 1), "each text is paid once"


async def test_once_it_is_out_nothing_more_is_sent(tmp_path: Path, provider: Provider) -> None:
    out_from(provider, 0)
    filled = await embedded(tmp_path, provider)
    assert sum(len(one.deferred) for one in filled) == len(TEXTS)
    assert len(provider.calls) <= 4, "as many as were out at the same time"


@pytest.mark.parametrize(("defers", "may"), [(False, True), (True, False)])
async def test_where_nothing_is_to_be_deferred_the_run_fails(
    defers: bool, may: bool, tmp_path: Path, provider: Provider
) -> None:
    out_from(provider, 1)
    with pytest.raises(TransientProviderError):
        await embedded(tmp_path, provider, defers=defers, may=may)


async def test_a_wrong_key_fails_the_run(tmp_path: Path, provider: Provider) -> None:
    provider.script[1] = ProviderRefused("wrong key", fault())
    with pytest.raises(ProviderRefused):
        await embedded(tmp_path, provider)


async def test_a_single_caller_gets_the_error(tmp_path: Path, provider: Provider) -> None:
    out_from(provider, 0)
    clock = HandClock(through=100.0)
    async with open_service(tmp_path, provider, clock, defers_outages=True) as service:
        with pytest.raises(TransientProviderError):
            await service.generate_embedding("text")
