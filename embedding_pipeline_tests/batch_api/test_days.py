"""Days on their way through the Batch API, whatever it does: made whole, and every bill booked."""

from pathlib import Path

import pytest

from embedding_pipeline.assembly import batching
from embedding_pipeline.assembly.batch_keeping import cancel, keep, submissions
from embedding_pipeline.assembly.batch_way import verdict_of
from embedding_pipeline.assembly.parts import build_datasets, open_store
from embedding_pipeline.batch_api.config import BatchApiConfig
from embedding_pipeline.ledger import queries
from embedding_pipeline.state import schema
from embedding_pipeline_tests.batch_api.days import DAYS, TEXTS, make_days, settings_of, vectors_of
from embedding_pipeline_tests.batch_api.killed import LEFT, Operator, count
from embedding_pipeline_tests.batch_api.test_faults import ENDINGS
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


async def prepared(folder: Path, fake: FakeOpenAI, **batch_api: object) -> Operator:
    """The operator of two days that lack their embeddings."""
    settings = settings_of(folder, fake.base_url, **batch_api)
    await make_days(settings)
    return Operator(settings)


async def left_over(operator: Operator) -> list[int]:
    with open_store(operator.settings) as store:
        return await store.read(lambda c: [c.scalar(count(table)) for table in LEFT])


async def booked(operator: Operator) -> int:
    with open_store(operator.settings) as store:
        sums = await store.read(queries.sums)
    return sum(entry.cost_nano_usd for entry in sums)


@pytest.mark.parametrize("ending", ENDINGS)
async def test_days_are_made_whole_whatever_their_batch_ends_as(
    ending: str, tmp_path: Path, fake_openai: FakeOpenAI
) -> None:
    fake_openai.batches.options.polls = 1
    fake_openai.batches.options.endings = [ending]
    operator = await prepared(tmp_path, fake_openai)
    await operator.run()
    await operator.to_the_end()
    delivered, doubtful = ENDINGS[ending]
    assert vectors_of(operator.settings)
    assert await left_over(operator) == [0] * len(LEFT)
    assert await booked(operator) == fake_openai.books.cost_nano_usd
    again = ending == "expired"  # there was time for one more; all others are not sent again
    assert len(fake_openai.batches.batches) == 1 + again
    assert fake_openai.books.billed_twice == doubtful
    if again or delivered == len(TEXTS):
        assert await booked(operator) == 10 * fake_openai.books.tokens


async def test_several_files_of_which_one_at_a_time_has_room(
    tmp_path: Path, fake_openai: FakeOpenAI
) -> None:
    fake_openai.batches.options.polls = 1
    fake_openai.batches.options.enqueued_limit = 60
    operator = await prepared(tmp_path, fake_openai, enqueued_tokens=60)
    await operator.run()
    await operator.to_the_end()
    assert len(fake_openai.batches.batches) > 2
    assert fake_openai.batches.most_pending <= 60
    assert fake_openai.books.requests == len(fake_openai.batches.batches), "nothing went by itself"
    assert fake_openai.books.billed_twice == 0
    assert vectors_of(operator.settings)
    assert await booked(operator) == 10 * fake_openai.books.tokens


async def test_past_the_deadline_the_rest_goes_by_itself(
    tmp_path: Path, fake_openai: FakeOpenAI
) -> None:
    fake_openai.batches.options.polls = 1_000_000
    operator = await prepared(tmp_path, fake_openai, deadline_hours=30)
    await operator.run()
    assert await operator.tick()
    operator.clock.skipped += 30 * 3600
    await operator.to_the_end()
    assert vectors_of(operator.settings)
    assert len(fake_openai.batches.batches) == 1
    assert fake_openai.books.billed_twice == 0
    assert await booked(operator) == fake_openai.books.cost_nano_usd


async def test_auto_weighs_what_is_missing(tmp_path: Path, fake_openai: FakeOpenAI) -> None:
    operator = await prepared(tmp_path, fake_openai, mode="auto")
    settings, datasets = operator.settings, build_datasets(operator.settings)
    little = await batching.send_days(settings, datasets, DAYS, "a run")
    assert little is not None
    assert "less than batch_api.min_tokens" in str(little)
    config = BatchApiConfig(mode="auto", min_tokens=20)
    settings = settings.model_copy(update={"batch_api": config})
    enough = await batching.send_days(settings, datasets, DAYS, "a run")
    assert enough is not None
    assert str(enough).startswith("12 texts in 1 files for the Batch API")
    hurried = config.model_copy(update={"deadline_hours": 2})
    settings = settings.model_copy(update={"batch_api": hurried})
    assert verdict_of(settings, 10**9).way == "sync"


async def test_no_more_goes_into_files_than_a_budget_has_room_for(
    tmp_path: Path, fake_openai: FakeOpenAI
) -> None:
    fake_openai.batches.options.polls = 1
    operator = await prepared(tmp_path, fake_openai)
    limit = {"scope": "all", "period": "total", "limit_usd": "0.0000005"}
    tree = operator.settings.model_dump() | {"budgets": [limit]}
    operator.settings = type(operator.settings).model_validate(tree)
    datasets = build_datasets(operator.settings)
    sent = await batching.send_days(operator.settings, datasets, DAYS, "a run", operator.clock)
    assert "have no room in a budget" in str(sent)
    with open_store(operator.settings) as store:
        reserved = await store.read(lambda c: c.scalar(count(schema.reservations)))
    assert reserved > 0
    for _ in range(2):
        await keep(operator.settings, operator.clock)
    assert 300 < await booked(operator) <= 500
    assert len(fake_openai.batches.batches) == 1
    assert await booked(operator) == fake_openai.books.cost_nano_usd


async def test_what_was_cancelled_by_hand_is_not_sent_to_another_batch(
    tmp_path: Path, fake_openai: FakeOpenAI
) -> None:
    fake_openai.batches.options.polls = 1_000_000
    operator = await prepared(tmp_path, fake_openai)
    await operator.run()
    (one,) = await submissions(operator.settings)
    await cancel(operator.settings, [one.id[:5]], operator.clock)
    await operator.to_the_end()
    assert len(fake_openai.batches.batches) == 1
    assert vectors_of(operator.settings)
