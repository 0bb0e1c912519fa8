"""Killed between any two steps: never a second submission, nothing paid twice, nothing lost."""

import pytest

from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.batch_api.world import (
    NOTHING_LEFT,
    KillAt,
    Killed,
    World,
    texts_of,
)
from embedding_pipeline_tests.fake_openai.server import FakeOpenAI

pytestmark = pytest.mark.anyio

SUBMITTING = ("claimed", "uploading", "uploaded", "upload recorded")
ADVANCING = (
    "creating recorded",
    "created",
    "creation recorded",
    "end recorded",
    "group settled",
    "collected",
    "settled",
    "file deleted",
)
NEVER_UPLOADED = ("claimed", "uploading")


@pytest.mark.parametrize("point", SUBMITTING + ADVANCING)
async def test_a_kill_costs_nothing_and_loses_nothing(
    point: str, store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts, kill = World(store, fake_openai), texts_of(12), KillAt(point)
    with pytest.raises(Killed):
        await _submit_and_advance(world, texts, kill)
    assert kill.struck
    await world.advance()  # the lease still holds: nobody else touches it
    await world.finish()
    rest = await world.submit(texts)
    assert rest.inputs == (12 if point in NEVER_UPLOADED else 0)
    await world.finish()
    assert all(await world.right(texts))
    assert len(fake_openai.batches.batches) == 1
    assert fake_openai.books.billed_twice == 0
    assert await world.booked() == fake_openai.books.cost_nano_usd
    assert await world.booked("unknown") == 0
    assert await world.left_over(texts) == NOTHING_LEFT
    assert await world.sweep() == 0
    assert not fake_openai.batches.files


async def _submit_and_advance(world: World, texts: list[str], kill: KillAt) -> None:
    await world.submit(texts, kill)
    await world.advance(kill)
