"""An import: compared first, booked, never in place of what is there, and safe to repeat."""

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from sqlalchemy import Connection, select

from embedding_pipeline.cache import claims, database
from embedding_pipeline.embedders.fake import fake_vector, fake_vectors
from embedding_pipeline.importing.found import Found, Reader
from embedding_pipeline.importing.judging import Demands
from embedding_pipeline.ledger import queries
from embedding_pipeline.pipeline import importing
from embedding_pipeline.pipeline.importing import ImportReport, ImportTerms, import_vectors
from embedding_pipeline.records import Space, Vectors, digest_of
from embedding_pipeline.state.schema import ledger
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.stores import open_store

pytestmark = pytest.mark.anyio

WIDTH = 8
SPACE = Space("fake", "hash", "", WIDTH)
TEXTS = [f"text {n}" for n in range(25)]


def reader(texts: Sequence[str], alter: Callable[[Vectors], Vectors] = lambda v: v) -> Reader:
    return lambda: (
        Found(position, text, alter(fake_vector("hash", text, WIDTH)))
        for position, text in enumerate(texts)
    )


async def own(texts: Sequence[str]) -> Vectors:
    """The model itself."""
    return fake_vectors("hash", texts, WIDTH)


async def run(store: Store, source: Reader, *, sample: int = 5) -> ImportReport:
    return await import_vectors(
        store,
        source,
        Demands(WIDTH),
        ImportTerms(SPACE, "test", "docs", sample=sample),
        clock=FakeClock(),
        rng=random.Random(7),
        compare=own,
    )


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 10)


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(tmp_path_factory.mktemp("state"))


async def test_all_is_stored_and_every_vector_has_an_entry_that_cost_nothing(
    store: Store, small_batches: None
) -> None:
    with store:
        report = await run(store, reader(TEXTS))
        assert (report.found, report.stored, report.present, report.left_out) == (25, 25, 0, 0)
        assert report.compared == 5
        assert report.worst_cosine == pytest.approx(1.0)
        keys = [digest_of(text) for text in TEXTS]
        found = await store.read(lambda c: database.get_many(c, 1, SPACE, keys))
        assert (found.vectors == fake_vectors("hash", TEXTS, WIDTH)).all()
        paid = await store.read(lambda c: database.paid_by(c, 1, keys))
        assert len(paid) == 25
        booked = await store.read(lambda c: c.execute(select(ledger)).all())
        assert {row.id for row in booked} == set(paid.values())
        assert len(booked) == 3, "an entry a batch, so that they can be evicted in parts"
        assert {(row.kind, row.project, row.cost_nano_usd) for row in booked} == {
            ("import", "docs", 0)
        }
        assert (await store.read(queries.balance)).unbalanced == 0


async def test_a_second_import_changes_nothing(store: Store) -> None:
    with store:
        await run(store, reader(TEXTS[:20]))
        report = await run(store, reader(TEXTS))
        assert (report.stored, report.present) == (5, 20)
        report = await run(store, reader([*TEXTS, *TEXTS]))
        assert (report.found, report.stored, report.present) == (50, 0, 50)
        assert len(await store.read(lambda c: c.execute(select(ledger)).all())) == 2


async def test_vectors_of_another_model_are_seen_and_nothing_is_stored(store: Store) -> None:
    with store:
        report = await run(store, reader(TEXTS, lambda vector: vector[::-1].copy()))
        assert report.compared == 5
        assert len(report.unlike) == 5
        assert report.worst_cosine is not None
        assert report.worst_cosine < importing.LEAST_COSINE
        assert report.stored == 0
        assert await store.read(lambda c: c.execute(select(ledger)).all()) == []


async def test_without_a_model_to_ask_nothing_is_compared(store: Store) -> None:
    with store:
        report = await run(store, reader(TEXTS), sample=0)
        assert (report.compared, report.worst_cosine, report.stored) == (0, None, 25)


async def test_what_somebody_is_buying_just_now_is_left_to_him(store: Store) -> None:
    key = digest_of(TEXTS[3])

    def claim(connection: Connection) -> None:
        claims.claim(connection, database.space_id(connection, SPACE), [key], "flight")

    with store:
        await store.write(claim)
        report = await run(store, reader(TEXTS))
        assert (report.stored, report.present) == (24, 1)
        assert not await store.read(lambda c: database.existing(c, 1, [key]))


async def test_bad_entries_take_no_good_ones_down(store: Store) -> None:
    def entries() -> list[Found]:
        good = list(reader(TEXTS)())
        bad = Found(25, "bad", np.full(WIDTH, np.nan, np.float32))
        return [*good[:3], bad, Found(26, None, None, problem="no_text"), *good[3:]]

    with store:
        report = await run(store, lambda: iter(entries()))
        assert (report.found, report.stored) == (27, 25)
        assert report.refused.counts == {"not_finite": 1, "no_text": 1}


async def test_the_sample_is_drawn_from_all_that_is_new(store: Store) -> None:
    seen: set[int] = set()
    with store:
        await run(store, reader(TEXTS[:5]))
        for seed in range(40):
            sample = importing._Sample(3, random.Random(seed))
            await importing._draw(store, 1, reader(TEXTS), Demands(WIDTH), sample)
            positions = {position for position, _, _ in sample.drawn}
            assert len(positions) == 3
            seen |= positions
    assert seen == set(range(5, 25)), "what is stored would be compared with itself"
