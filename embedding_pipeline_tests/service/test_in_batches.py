"""Keys that a batch of the Batch API holds: left for later by name, never bought beside it."""

from pathlib import Path

import pytest
from sqlalchemy import Connection

from embedding_pipeline.batch_api.records import OWNER
from embedding_pipeline.cache import claims
from embedding_pipeline.errors import InBatch
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.deferred import BATCH_API
from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.records import Kind, digest_of
from embedding_pipeline.service.fetching import Fetcher
from embedding_pipeline.service.work import Row
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import (
    HandClock,
    Provider,
    items,
    open_fetcher,
    open_service,
)
from embedding_pipeline_tests.service.landings import collect, texts_of
from embedding_pipeline_tests.service.streams import batch, bulk, drain, stream
from embedding_pipeline_tests.service.test_budgets import budgets

pytestmark = pytest.mark.anyio


async def put_into_a_batch(store: Store, space_id: int, *texts: str) -> None:
    """Claim texts as a submission does."""
    flight = Flight("b" * 32, OWNER, space_id, "", "openai", Kind.BATCH_API, 10, ())

    def write(connection: Connection) -> None:
        flights.open_flight(connection, flight, 0)
        claims.claim(connection, space_id, [digest_of(text) for text in texts], flight.id)

    await store.write(write)


async def test_what_is_in_a_batch_is_deferred_and_the_rest_is_bought(
    fetcher: Fetcher, store: Store, provider: Provider
) -> None:
    await put_into_a_batch(store, fetcher.terms.space_id, "beta", "delta")
    landings = await collect(fetcher, items("alpha", "beta", "gamma", "delta"))
    assert texts_of(landings, ["alpha", "gamma"]) == ["alpha", "gamma"]
    deferred = {digest: why for landing in landings for digest, why in landing.deferred.items()}
    assert deferred.keys() == {digest_of("beta"), digest_of("delta")}
    assert {why.reason for why in deferred.values()} == {BATCH_API}
    assert provider.calls == [("alpha", "gamma")]


async def test_every_place_of_a_text_in_a_batch_is_left_for_later(
    store: Store, provider: Provider, fetcher: Fetcher
) -> None:
    await put_into_a_batch(store, fetcher.terms.space_id, "even")
    texts = ["even", "odd", "even", "other"]
    (first, second) = await drain(bulk(store, provider, stream([batch(texts), batch(texts, 4)])))
    for one in (first, second):
        assert one.status.tolist().count(Row.DEFERRED) == 2
        assert {why.reason for why in one.deferred.values()} == {BATCH_API}
    assert sorted(text for call in provider.calls for text in call) == ["odd", "other"]


async def test_a_text_in_a_batch_is_not_counted_as_one_without_money(
    store: Store, provider: Provider, clock: HandClock
) -> None:
    poor = open_fetcher(store, provider, clock, budgets=budgets(all=2))
    await put_into_a_batch(store, poor.terms.space_id, "in a batch")
    for _ in range(2):  # the second time, the purse knows that it is empty
        found = await collect(poor, items("too much", "in a batch"))
        reasons = {d: why.reason for landing in found for d, why in landing.deferred.items()}
        assert reasons == {
            digest_of("too much"): "budget",
            digest_of("in a batch"): BATCH_API,
        }


async def test_an_online_caller_is_told(tmp_path: Path, provider: Provider) -> None:
    async with open_service(tmp_path, provider, HandClock(through=1.0)) as service:
        await put_into_a_batch(service.store, service.space_id, "waited for")
        with pytest.raises(InBatch, match="24 hours"):
            await service.generate_embedding("waited for")
        await service.generate_embedding("not waited for")
    assert provider.calls == [("not waited for",)]
