"""The service as its callers see it: opened, asked, closed; whatever happens, it ends."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from embedding_pipeline.embedders.fake import fake_vector
from embedding_pipeline.errors import (
    KeyExhausted,
    ProviderRefused,
    ServiceClosed,
    StateError,
    TextRefused,
)
from embedding_pipeline.service import core
from embedding_pipeline.service.bulk import BulkRun
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.service.work import FilledBatch
from embedding_pipeline.state import owners, schema
from embedding_pipeline.state.owners import LEASE_SECONDS, RENEW_SECONDS
from embedding_pipeline.vectors.view import view
from embedding_pipeline_tests.service.harness import (
    MAX_TOKENS,
    WIDTH,
    HandClock,
    Provider,
    fault,
    open_service,
    read_books,
    turns,
)
from embedding_pipeline_tests.service.streams import batch, drain, stream
from embedding_pipeline_tests.stores import open_store

pytestmark = pytest.mark.anyio


@pytest.fixture
def service(tmp_path: Path, provider: Provider, clock: HandClock) -> ServiceCore:
    return open_service(tmp_path, provider, clock)


def is_right(text: str, vector: np.ndarray) -> bool:
    return bool((vector == fake_vector("hash", text, WIDTH)).all())


# --- single texts and many -----------------------------------------------------------------------


async def test_a_text_becomes_its_vector_and_is_paid_once(
    service: ServiceCore, provider: Provider
) -> None:
    async with service:
        vector = await service.generate_embedding("hello", project="docs", user="ann")
        assert is_right("hello", vector)
        assert vector.dtype == np.float32
        assert vector.shape == (WIDTH,)
        assert is_right("hello", await service.generate_embedding("hello", priority="urgent"))
        assert provider.calls == [("hello",)]
        row = await service.store.read(lambda c: c.execute(select(schema.ledger)).one())
        assert (row.project, row.user, row.partition, row.tokens) == ("docs", "ann", "", 5)


async def test_many_texts_come_back_in_order_with_repeats(
    service: ServiceCore, provider: Provider
) -> None:
    texts = [f"text {n % 37}" for n in range(100)]
    async with service:
        vectors = await service.embed_many(texts)
    assert vectors.shape == (100, WIDTH)
    assert all(is_right(text, vector) for text, vector in zip(texts, vectors, strict=True))
    assert set(provider.billed.values()) == {1}


async def test_no_texts_are_an_empty_matrix(service: ServiceCore, provider: Provider) -> None:
    async with service:
        assert (await service.embed_many([])).shape == (0, WIDTH)
    assert provider.calls == []


async def test_more_texts_than_are_waited_for_at_a_time(
    service: ServiceCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "MANY", 10)
    monkeypatch.setattr(core, "AT_ONCE", 50)
    texts = [f"text {n}" for n in range(45)]
    async with service:
        vectors = await service.embed_many(texts)
    assert all(is_right(text, vector) for text, vector in zip(texts, vectors, strict=True))


async def test_smaller_dimensions_are_a_view_of_what_is_stored(
    tmp_path: Path, provider: Provider, clock: HandClock
) -> None:
    async with open_service(tmp_path, provider, clock, dimensions=3) as service:
        vector = await service.generate_embedding("hello")
        named = await service.generate_embedding("hello", cache_key="greeting")
        found = await service.get_embedding("greeting")
    whole = fake_vector("hash", "hello", WIDTH)[None]
    assert (vector == view(whole, 3)[0]).all()
    assert found is not None
    assert (found == named).all()
    assert len(provider.calls) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "blank"),
        (" \n\u3000", "blank"),
        ("x" * (MAX_TOKENS + 1), "too_long"),
        ("half a character: \ud83d", "not_utf8"),
    ],
)
async def test_a_text_that_cannot_be_embedded_is_refused_before_any_call(
    service: ServiceCore, provider: Provider, text: str, reason: str
) -> None:
    async with service:
        with pytest.raises(TextRefused, match="text 0 cannot be embedded") as one:
            await service.generate_embedding(text)
        with pytest.raises(TextRefused, match="text 1 cannot be embedded") as many:
            await service.embed_many(["fine", text])
    assert one.value.reason == many.value.reason == reason
    assert text not in str(one.value) or not text.strip()
    assert provider.calls == []


async def test_a_text_the_provider_refuses_is_named_and_the_others_are_stored(
    service: ServiceCore, provider: Provider
) -> None:
    provider.poison = lambda text: text == "c"
    async with service:
        with pytest.raises(TextRefused, match="text 2 cannot be embedded") as caught:
            await service.embed_many(["a", "b", "c", "d"])
        assert caught.value.reason == "refused_by_provider"
        calls = len(provider.calls)
        await service.embed_many(["a", "b", "d"])
        assert len(provider.calls) == calls


async def test_a_long_text_under_split_mean_is_the_mean_of_its_parts(
    tmp_path: Path, provider: Provider, clock: HandClock
) -> None:
    text = "a" * MAX_TOKENS + "b"
    async with open_service(tmp_path, provider, clock, policy="split_mean") as service:
        vector = await service.generate_embedding(text)
        with pytest.raises(TextRefused, match="cache_key names vectors made from exactly"):
            await service.generate_embedding(text, cache_key="long")
    first, second = (fake_vector("hash", part, WIDTH) for part in ("a" * MAX_TOKENS, "b"))
    mean = MAX_TOKENS * first.astype(np.float64) + second.astype(np.float64)
    assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


async def test_a_name_finds_the_vector_of_its_latest_text(service: ServiceCore) -> None:
    async with service:
        assert await service.get_embedding("title") is None
        for text in ("old title", "new title", "old title"):
            await service.generate_embedding(text, cache_key="title")
            found = await service.get_embedding("title")
            assert found is not None
            assert is_right(text, found)


async def test_an_error_of_the_provider_is_the_callers(
    service: ServiceCore, provider: Provider
) -> None:
    provider.script = {0: KeyExhausted("no quota", fault())}
    async with service:
        with pytest.raises(KeyExhausted):
            await service.embed_many(["a", "b"])


# --- opening and closing -------------------------------------------------------------------------


async def test_closed_in_peace_it_leaves_no_lease_and_nothing_open(
    service: ServiceCore, provider: Provider, tmp_path: Path
) -> None:
    async with service:
        await service.generate_embedding("a")
        assert (await service.store.read(read_books)).owners == 1
    assert provider.closed == 1
    with open_store(tmp_path) as store:
        books = await store.read(read_books)
    assert (books.owners, books.flights, books.claims, books.unknown) == (0, 0, 0, 0)


Call = Callable[[ServiceCore], Any]


@pytest.mark.parametrize(
    "call",
    [
        lambda service: service.generate_embedding("a"),
        lambda service: service.embed_many(["a"]),
        lambda service: service.get_embedding("a"),
        lambda service: service.stored([]),
        lambda service: service.quarantined("2026-01-01"),
    ],
)
async def test_before_and_after_every_call_is_refused(service: ServiceCore, call: Call) -> None:
    with pytest.raises(ServiceClosed):
        await call(service)
    async with service:
        pass
    with pytest.raises(ServiceClosed):
        await call(service)


async def test_closing_serves_who_is_waiting(service: ServiceCore) -> None:
    async with service:
        waiting = [asyncio.create_task(service.generate_embedding(text)) for text in "abc"]
        await turns()
    for text, call in zip("abc", waiting, strict=True):
        assert is_right(text, await call)


async def test_closing_ends_a_bulk_run_and_keeps_what_is_out(
    service: ServiceCore, provider: Provider, tmp_path: Path
) -> None:
    provider.gate = asyncio.Event()
    texts = [f"text {n}" for n in range(100)]
    async with service:
        run: BulkRun = service.bulk(stream([batch(texts)]))
        task = asyncio.create_task(drain(run))
        await provider.reached(3)
        asyncio.get_running_loop().call_later(0.01, provider.gate.set)
    with pytest.raises(ServiceClosed):
        await task
    with open_store(tmp_path) as store:
        books = await store.read(read_books)
    assert books.settled == provider.tokens > 0
    assert (books.unknown, books.flights, books.claims, books.owners) == (0, 0, 0, 0)


async def test_closing_has_an_end_even_when_the_provider_has_none(
    service: ServiceCore, provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "PATIENCE_SECONDS", 0.02)
    provider.gate = asyncio.Event()
    async with service:
        task = asyncio.create_task(drain(service.bulk(stream([batch(["a", "b"])]))))
        await provider.reached()
    with open_store(tmp_path) as store:
        books = await store.read(read_books)
    assert (books.unknown, books.flights, books.claims, books.owners) == (2, 0, 0, 0)
    provider.gate.set()
    with pytest.raises((ServiceClosed, StateError)):
        await task


async def test_cancelled_while_closing_it_closes_all_the_same(
    service: ServiceCore, provider: Provider, tmp_path: Path
) -> None:
    provider.gate = asyncio.Event()

    async def use() -> None:
        async with service:
            call = asyncio.create_task(service.generate_embedding("a"))
            await provider.reached()
        await call

    user = asyncio.create_task(use())
    await provider.reached()
    await turns()
    user.cancel()
    await turns()
    provider.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await user
    assert provider.closed == 1
    with open_store(tmp_path) as store:
        books = await store.read(read_books)
    assert (books.settled, books.owners, books.flights) == (1, 0, 0)


class Unopenable(Provider):
    """A provider that cannot be opened."""

    async def __aenter__(self) -> "Unopenable":
        raise ProviderRefused("no such key", fault())


async def test_a_provider_that_cannot_be_opened_leaves_nothing_open(
    tmp_path: Path, clock: HandClock
) -> None:
    service = open_service(tmp_path, Unopenable(), clock)
    with pytest.raises(ProviderRefused):
        async with service:
            raise AssertionError("it is not open")
    with pytest.raises(StateError, match="it is closed"):
        await service.store.read(read_books)
    with open_store(tmp_path) as store:
        assert (await store.read(read_books)).owners == 0


async def test_an_error_inside_is_not_hidden_by_the_closing(service: ServiceCore) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with service:
            raise LookupError("mine")


# --- the lease -----------------------------------------------------------------------------------


async def _lease(service: ServiceCore, changed_from: int) -> int:
    """When the lease ends, once that has changed; 0 without a lease."""
    query = select(schema.owners.c.expires_at)
    async with asyncio.timeout(60):
        while True:
            ends = await service.store.read(lambda c: int(c.scalar(query) or 0))
            if ends != changed_from:
                return ends


async def test_the_heartbeat_renews_the_lease(service: ServiceCore, clock: HandClock) -> None:
    async with service:
        before = await _lease(service, 0)
        await clock.slept()
        clock.advance(RENEW_SECONDS)
        assert await _lease(service, before) == before + RENEW_SECONDS * 1000


async def test_a_lease_that_was_taken_away_is_taken_again(
    service: ServiceCore, clock: HandClock
) -> None:
    async with service:
        await service.store.write(lambda c: c.execute(schema.owners.delete()))
        await clock.slept()
        clock.advance(RENEW_SECONDS)
        assert await _lease(service, 0) > clock.now() * 1000


async def test_opening_books_what_the_dead_left_behind(
    service: ServiceCore, provider: Provider, tmp_path: Path, clock: HandClock
) -> None:
    provider.gate = asyncio.Event()
    other = open_service(tmp_path, provider, clock)
    async with other:
        stuck = asyncio.create_task(other.generate_embedding("abc"))
        await provider.reached()
        clock.elapsed += LEASE_SECONDS + 1
        async with service:
            books = await service.store.read(read_books)
            assert (books.unknown, books.flights, books.claims, books.owners) == (3, 0, 0, 1)
        provider.gate.set()
        await stuck
    with open_store(tmp_path) as store:
        books = await store.read(read_books)
    assert (books.settled, books.unknown) == (3, 0), "it was alive after all"


async def test_two_services_on_one_file_pay_a_text_once(
    tmp_path: Path, provider: Provider, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pauses pass at once: on a busy machine the one that waits would see the other's lease end
    monkeypatch.setattr(owners, "LEASE_SECONDS", 10**9)
    texts = [f"text {n}" for n in range(60)]
    one, two = (open_service(tmp_path, provider, clock) for _ in range(2))
    async with one, two:
        ends: Sequence[list[FilledBatch]] = await asyncio.gather(
            drain(one.bulk(stream([batch(texts)]))), drain(two.bulk(stream([batch(texts)])))
        )
    for (filled,) in ends:
        assert all(
            is_right(text, vector) for text, vector in zip(texts, filled.vectors, strict=True)
        )
    assert set(provider.billed.values()) == {1}


async def test_vectors_of_another_width_never_reach_a_caller(
    service: ServiceCore, provider: Provider
) -> None:
    provider.alter = lambda result: replace(result, vectors=result.vectors[:, :4])
    async with service:
        with pytest.raises(TextRefused, match="invalid_reply"):
            await service.generate_embedding("a")
