"""A submission that nobody can ask after: keys and money are free, and its bill is feared."""

import pytest

from embedding_pipeline.batch_api.books import LEASE_MS
from embedding_pipeline.batch_api.forgetting import NOTE, Forgotten, forget
from embedding_pipeline.batch_api.records import State
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.batch_api.world import (
    NOTHING_LEFT,
    PRICE,
    KillAt,
    Killed,
    World,
    texts_of,
)
from embedding_pipeline_tests.fake_openai.server import FakeOpenAI

pytestmark = pytest.mark.anyio

TEXTS = texts_of(6)


async def forgotten(world: World, submission_id: str) -> Forgotten | None:
    now_ms = int(world.clock.now() * 1000)
    return await world.store.write(lambda c: forget(c, submission_id, now_ms))


async def test_what_a_batch_may_be_billed_for_is_booked_as_unknown(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world = World(store, fake_openai)
    (name,) = (await world.submit(TEXTS)).ids
    fake_openai.batches.options.polls = 1_000_000
    await world.advance()
    done = await forgotten(world, name)
    assert done is not None
    assert (done.freed, done.unknown) == (6, 6)
    assert (done.submission.state, done.submission.note) == (State.DONE, NOTE)
    weights = [one.weight for one in await world.all()]
    assert 0 < await world.booked("unknown") <= sum(weights) * PRICE
    assert await world.left_over(TEXTS) == NOTHING_LEFT
    assert (await world.submit(TEXTS)).inputs == 6, "they are free"
    assert await forgotten(world, name) is None, "nothing is left of it"


async def test_what_was_never_sent_costs_nothing(store: Store, fake_openai: FakeOpenAI) -> None:
    world = World(store, fake_openai)
    (name,) = (await world.submit(TEXTS)).ids
    done = await forgotten(world, name)
    assert done is not None
    assert (done.freed, done.unknown) == (6, 0)
    assert await world.booked("unknown") == 0
    assert await world.left_over(TEXTS) == NOTHING_LEFT


async def test_one_that_a_process_works_on_is_left_alone(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world = World(store, fake_openai)
    kill = KillAt("creation recorded")
    (name,) = (await world.submit(TEXTS)).ids
    with pytest.raises(Killed):
        await world.advance(kill)
    assert await forgotten(world, name) is None
    world.clock.advance(LEASE_MS / 1000 + 1)
    done = await forgotten(world, name)
    assert done is not None
    assert done.unknown == 6
