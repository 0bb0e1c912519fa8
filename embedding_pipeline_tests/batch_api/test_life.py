"""A submission from its keys to vectors in the cache, over real HTTP."""

from zoneinfo import ZoneInfo

import pytest

from embedding_pipeline.batch_api.config import BatchApiConfig
from embedding_pipeline.batch_api.files import FileCaps
from embedding_pipeline.batch_api.records import State
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.ledger.config import BudgetConfig
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.batch_api.world import NOTHING_LEFT, World, texts_of
from embedding_pipeline_tests.fake_openai.server import FakeOpenAI

pytestmark = pytest.mark.anyio


async def test_a_batch_brings_every_vector_at_half_the_price(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts = World(store, fake_openai), texts_of(12)
    done = await world.submit(texts)
    assert (len(done.ids), done.inputs, done.elsewhere) == (1, 12, 0)
    await world.finish()
    assert all(await world.right(texts))
    books = fake_openai.books
    assert await world.booked() == books.cost_nano_usd == books.tokens * 10 > 0
    assert books.billed_twice == 0
    assert await world.left_over(texts) == NOTHING_LEFT
    assert not fake_openai.batches.files
    assert [one.note for one in await world.all()] == ["everything came back"]


async def test_keys_in_a_batch_and_stored_ones_are_not_sent_again(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts = World(store, fake_openai), texts_of(8)
    await world.submit(texts[:5])
    again = await world.submit(texts)
    assert (again.inputs, again.elsewhere) == (3, 5)
    await world.finish()
    stored = await world.submit(texts)
    assert (stored.ids, stored.elsewhere) == ([], 8)
    assert fake_openai.books.billed_twice == 0


async def test_files_wait_for_room_in_the_queue_and_finish_unattended(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    texts = texts_of(30)
    world = World(store, fake_openai, caps=FileCaps(max_inputs=10))
    done = await world.submit(texts)
    assert len(done.ids) == 3
    limit = max(one.weight for one in await world.all()) * 2  # ours admits 65 % of it
    world.config = BatchApiConfig(mode="on", enqueued_tokens=limit)
    fake_openai.batches.options.enqueued_limit = limit
    fake_openai.batches.options.polls = 1
    await world.finish()
    assert all(await world.right(texts))
    assert len(fake_openai.batches.batches) == 3
    assert fake_openai.batches.most_pending <= limit
    one_at_a_time = max(one.estimate for one in fake_openai.batches.batches.values())
    assert fake_openai.batches.most_pending == one_at_a_time


async def test_a_queue_that_is_fuller_than_we_know_is_asked_again(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts = World(store, fake_openai), texts_of(6)
    fake_openai.batches.options.enqueued_limit = 1
    await world.submit(texts)
    (waiting,) = await world.advance()
    assert (waiting.state, waiting.attempt) == (State.UPLOADED, 1)
    assert "full" in waiting.note
    assert [one.state for one in await world.advance()] == [State.UPLOADED]
    assert len(fake_openai.batches.batches) == 1, "it was asked again before its time"
    fake_openai.batches.options.enqueued_limit = None
    world.clock.advance(601)
    await world.finish()
    assert all(await world.right(texts))
    assert fake_openai.batches.uploads == 1


async def test_budgets_hold_from_submission_to_collection(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    budget = BudgetConfig(scope="project:a", period="total", limit_usd=0.0000003)
    purse = Budgets((budget,), ZoneInfo("UTC"))
    world, texts = World(store, fake_openai, purse=purse), texts_of(20)
    done = await world.submit(texts)
    assert done.unpaid > 0
    assert done.inputs == 20 - done.unpaid
    now = int(world.clock.now() * 1000)
    (held,) = await store.read(lambda c: purse.standings(c, now))
    assert 0 < held.reserved_nano <= held.limit_nano
    await world.finish()
    (spent,) = await store.read(lambda c: purse.standings(c, now))
    assert spent.reserved_nano == 0
    assert 0 < spent.spent_nano <= held.reserved_nano


async def test_past_the_deadline_a_batch_is_cancelled_and_its_rest_is_free(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    config = BatchApiConfig(mode="on", deadline_hours=30)
    world, texts = World(store, fake_openai, config=config), texts_of(10)
    fake_openai.batches.options.polls = 1000
    await world.submit(texts)
    await world.advance()
    world.clock.advance(30 * 3600 + 1)
    await world.finish()
    assert sum(await world.right(texts)) == 5
    assert await world.booked() == fake_openai.books.cost_nano_usd
    assert await world.booked("unknown") == 0
    assert await world.left_over(texts) == NOTHING_LEFT


async def test_a_person_cancels_before_and_after_the_batch_is_made(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts = World(store, fake_openai), texts_of(10)
    (first,) = (await world.submit(texts)).ids
    await world.cancel(first)
    await world.finish()
    assert not fake_openai.batches.batches
    fake_openai.batches.options.polls = 1000
    (second,) = (await world.submit(texts)).ids
    await world.advance()
    cancelled = await world.cancel(second)
    assert cancelled is not None
    assert cancelled.status == "cancelling"
    await world.finish()
    assert sum(await world.right(texts)) == 5
    assert not fake_openai.batches.files
