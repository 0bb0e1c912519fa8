"""What can go wrong at the provider: paid results are kept, the rest is free, nothing is lost."""

import traceback

import pytest

from embedding_pipeline.batch_api.config import BatchApiConfig
from embedding_pipeline.errors import ProviderRefused
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.batch_api.world import NOTHING_LEFT, World, texts_of
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI

pytestmark = pytest.mark.anyio

# How a batch of 12 ends: vectors that come back, and keys booked as unknown.
ENDINGS = {
    "failed": (0, 0),
    "expired": (6, 0),
    "cancelled": (6, 0),
    "errors_only": (0, 0),
    "line_errors": (8, 0),
    "duplicates": (12, 0),
    "missing": (9, 3),
    "spoilt": (11, 1),
    "status_zero": (11, 1),
    "deleted": (0, 12),
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_each_ending_keeps_what_was_paid_and_frees_the_rest(
    ending: str, store: Store, fake_openai: FakeOpenAI
) -> None:
    delivered, doubtful = ENDINGS[ending]
    world, texts = World(store, fake_openai), texts_of(12)
    fake_openai.batches.options.endings = [ending]
    await world.submit(texts)
    await world.finish()
    assert sum(await world.right(texts)) == delivered
    assert await world.left_over(texts) == NOTHING_LEFT
    unknown = await world.booked("unknown")
    assert (unknown > 0) == (doubtful > 0)
    assert await world.booked() + unknown == fake_openai.books.cost_nano_usd
    rest = await world.submit(texts)
    assert rest.inputs == 12 - delivered
    await world.finish()
    assert all(await world.right(texts))
    assert not fake_openai.batches.files


async def test_a_download_that_breaks_off_is_read_again(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts = World(store, fake_openai), texts_of(12)
    fake_openai.batches.options.torn_downloads = 2
    await world.submit(texts)
    await world.finish()
    assert all(await world.right(texts))
    assert await world.booked() == fake_openai.books.cost_nano_usd
    assert await world.booked("unknown") == 0


async def test_a_creation_whose_answer_was_lost_is_found_not_repeated(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts = World(store, fake_openai), texts_of(6)
    fake_openai.batches.options.lost_creations = 1
    await world.submit(texts)
    await world.advance()
    await world.finish()
    assert all(await world.right(texts))
    assert len(fake_openai.batches.batches) == 1
    assert fake_openai.books.billed_twice == 0


async def test_a_file_deleted_before_it_was_sent_frees_its_keys(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts = World(store, fake_openai), texts_of(6)
    await world.submit(texts)
    fake_openai.batches.files.clear()
    await world.finish()
    assert await world.left_over(texts) == NOTHING_LEFT
    await world.submit(texts)
    await world.finish()
    assert all(await world.right(texts))


async def test_a_batch_the_provider_forgot_is_booked_as_unknown(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts = World(store, fake_openai), texts_of(6)
    fake_openai.batches.options.polls = 1000
    await world.submit(texts)
    await world.advance()
    fake_openai.batches.batches.clear()
    await world.finish()
    assert await world.booked("unknown") > 0
    assert await world.left_over(texts) == NOTHING_LEFT


async def test_a_refused_key_leaves_everything_as_it_is(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts = World(store, fake_openai), texts_of(6)
    await world.submit(texts)
    keys, fake_openai.options.keys = fake_openai.options.keys, ()
    (waiting,) = await world.advance()
    assert "401" in waiting.note
    fake_openai.options.keys = keys
    await world.finish()
    assert all(await world.right(texts))


async def test_a_refused_upload_says_why_without_the_key_and_frees_its_keys(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts = World(store, fake_openai), texts_of(6)
    keys, fake_openai.options.keys = fake_openai.options.keys, ()
    with pytest.raises(ProviderRefused, match="401") as refused:
        await world.submit(texts)
    shown = "".join(traceback.format_exception(refused.value))
    assert KEY[-4:] not in shown, "the server repeats a part of the key"
    fake_openai.options.keys = keys
    await world.advance()
    assert await world.left_over(texts) == NOTHING_LEFT
    assert (await world.submit(texts)).inputs == 6


async def test_files_of_nobody_are_deleted_and_those_of_others_are_not(
    store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts = World(store, fake_openai), texts_of(6)
    await world.submit(texts)
    identity = (await world.terms()).identity
    batches = fake_openai.batches
    batches.upload(f"embedding-pipeline-{identity}-{'0' * 32}.jsonl", "batch", b"{}\n")
    batches.upload("somebody-else.jsonl", "batch", b"{}\n")
    batches.upload(f"embedding-pipeline-00000000-{'0' * 32}.jsonl", "batch", b"{}\n")
    assert await world.sweep() == 1
    await world.finish()
    assert all(await world.right(texts))
    assert len(batches.files) == 2


async def test_files_stay_where_the_settings_say_so(store: Store, fake_openai: FakeOpenAI) -> None:
    config = BatchApiConfig(mode="on", delete_files=False)
    world, texts = World(store, fake_openai, config=config), texts_of(6)
    await world.submit(texts)
    await world.finish()
    assert len(fake_openai.batches.files) == 2
    assert await world.sweep() == 0
