"""What ``plan`` says is what the API then bills, text by text and account by account."""

import json
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import pytest

from embedding_pipeline.assembly.parts import build_counter, build_datasets, build_source
from embedding_pipeline.assembly.planning import plan_spending
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.catalog import find_model
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.ledger import queries
from embedding_pipeline.ledger.config import BudgetConfig
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.pipeline.plan import Figures, Rates, SpendingPlan, cost
from embedding_pipeline.pipeline.plan_words import sentences, table
from embedding_pipeline.pipeline.raw import build_raw_chunks
from embedding_pipeline.records import Account
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline_tests.engine.quick import QuickClock, settings_for
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI

pytestmark = pytest.mark.anyio

DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]
LONG = "a very long text " * 3000


def rows(day: int) -> Iterator[dict[str, object]]:
    """Two projects; copies within a day, texts every day has, one too long, one poisoned."""
    for number in range(30):
        text = f"day {day} row {number % 22}: 文字 🙂" if number % 3 else f"listing {number}"
        yield {"id": number, "text": text, "project": "ab"[number % 2], "user": f"u{number % 4}"}
    yield {"id": "long", "text": f"{LONG} {day}", "project": "a"}
    yield {"id": "poison", "text": "POISON", "project": "b"}
    if day > 0:
        yield {"id": "late", "text": "what only the later days have", "project": "a"}


@pytest.fixture
def settings(tmp_path: Path, fake_openai: FakeOpenAI) -> Settings:
    for number, day in enumerate(DAYS):
        lines = "".join(json.dumps(row) + "\n" for row in rows(number))
        (tmp_path / f"{day}.jsonl").write_text(lines)
    return make_settings(tmp_path, fake_openai)


def make_settings(folder: Path, fake: FakeOpenAI, **requests: object) -> Settings:
    return settings_for(
        folder / "data",
        fake.base_url,
        source={"kind": "files", "path": f"{folder}/{{date}}.jsonl"},
        partitions={"start_date": DAYS[0]},
        requests={"max_inputs": 20, **requests},
        retry={"timeout_seconds": 60},
    )


async def chunks_of(settings: Settings, days: Sequence[str]) -> None:
    datasets, source, counter = (
        build_datasets(settings),
        build_source(settings),
        build_counter(settings),
    )
    for day in days:
        build_raw_chunks(source, datasets, counter, settings.chunking, day)
        build_deduped_chunks(datasets, settings.dedup, day)


async def run(settings: Settings, days: Sequence[str]) -> dict[Account, int]:
    """Make some days; what the ledger then holds for each account."""
    await chunks_of(settings, days)
    async with EmbeddingService(settings=settings, api_key=KEY, clock=QuickClock()) as service:
        await build_embeddings(service, build_datasets(settings), days)
        entries = await service.store.read(queries.sums)
    return {entry.account: entry.tokens for entry in entries}


def tokens_of(plan: SpendingPlan) -> dict[Account, int]:
    return {who: figures.input_tokens for who, figures in plan.figures.items()}


@pytest.mark.parametrize("oversize", ["reject", "truncate", "split_mean"])
async def test_every_account_pays_what_was_planned(
    oversize: str, settings: Settings, tmp_path: Path, fake_openai: FakeOpenAI
) -> None:
    settings = make_settings(tmp_path, fake_openai, oversize=oversize)
    plan = await plan_spending(settings, DAYS)
    booked = await run(settings, DAYS)
    assert plan.total.input_tokens == fake_openai.books.tokens > 0
    assert plan.cost_nano_usd == fake_openai.books.cost_nano_usd
    assert {who: n for who, n in tokens_of(plan).items() if n} == booked
    assert plan.requests == fake_openai.books.requests
    assert plan.total.refused == (3 if oversize == "reject" else 0)


async def test_every_chunk_has_one_fate(settings: Settings) -> None:
    await run(settings, DAYS[:1])
    plan = await plan_spending(settings, DAYS)
    for account, f in plan.figures.items():
        assert f.representatives == f.to_embed + f.repeated + f.cached + f.refused, account
    total = plan.total
    assert total.chunks == 3 * 32 + 2
    assert total.duplicates > 0
    assert total.cached > 0
    assert total.repeated == 1
    assert plan.by("partition")[DAYS[0],].to_embed == 0, "its vectors are in the cache"


async def test_planning_leaves_no_trace(settings: Settings, fake_openai: FakeOpenAI) -> None:
    await plan_spending(settings, DAYS)
    assert not settings.data_path.exists()
    assert fake_openai.books.requests == 0


async def test_a_plan_is_the_same_whichever_datasets_are_there(settings: Settings) -> None:
    before = await plan_spending(settings, DAYS)
    await chunks_of(settings, DAYS[1:])
    build_datasets(settings).deduped_chunks(DAYS[2]).remove()
    build_datasets(settings).duplicate_chunks(DAYS[2]).remove()
    assert await plan_spending(settings, DAYS) == before
    assert not build_datasets(settings).deduped_chunks(DAYS[2]).exists()
    build_datasets(settings).raw_chunks(DAYS[1]).remove()
    after = await plan_spending(settings, DAYS)
    assert after.total.to_embed == before.total.to_embed


async def test_what_is_done_costs_nothing_and_a_refused_text_is_not_planned_again(
    settings: Settings, fake_openai: FakeOpenAI
) -> None:
    fake_openai.fault(Fault("400_input", marker="POISON"))
    await run(settings, DAYS)
    plan = await plan_spending(settings, DAYS)
    assert (plan.total.to_embed, plan.total.input_tokens, plan.requests) == (0, 0, 0)
    assert plan.cost_nano_usd == 0
    assert plan.total.refused == 6, "one too long and one poisoned on each day"


async def test_another_model_is_another_space_with_its_own_price(settings: Settings) -> None:
    await run(settings, DAYS)
    plan = await plan_spending(settings, DAYS, model="openai/text-embedding-3-large")
    spec = find_model("openai/text-embedding-3-large")
    assert plan.space == spec.space
    assert plan.total.cached == 0
    assert plan.cost_nano_usd == plan.total.input_tokens * 130
    assert plan.batch_cost_nano_usd == plan.total.input_tokens * 65
    with pytest.raises(ConfigurationError, match="unknown model"):
        await plan_spending(settings, DAYS, model="openai/none")


async def test_the_time_is_that_of_the_limits_set_or_learned(
    settings: Settings, fake_openai: FakeOpenAI, tmp_path: Path
) -> None:
    plan = await plan_spending(settings, DAYS)
    assert plan.seconds is None
    assert "unknown" in list(sentences(plan))[2]
    fake_openai.limit(tpm=90_000, rpm=700)
    await run(settings, DAYS[:1])
    learned = (await plan_spending(settings, DAYS)).rates
    assert learned == Rates(90_000, 700)
    named = settings_for(
        tmp_path / "other",
        fake_openai.base_url,
        source={"kind": "files", "path": f"{tmp_path}/{{date}}.jsonl"},
        partitions={"start_date": DAYS[0]},
        limits={"tokens_per_minute": 60_000},
    )
    plan = await plan_spending(named, DAYS)
    assert plan.rates == Rates(60_000, None)
    assert plan.seconds == plan.estimated_tokens / 1000


async def test_budgets_that_do_not_allow_it_say_so(settings: Settings) -> None:
    free = await plan_spending(settings, DAYS)
    cost_usd = (free.cost_nano_usd or 0) / 1e9
    ample = BudgetConfig(scope="all", period="total", limit_usd=cost_usd)
    scarce = BudgetConfig(scope="project:a", period="month", limit_usd=cost_usd / 10)
    other = BudgetConfig(scope="project:c", period="month", limit_usd=0)
    within = settings.model_copy(update={"budgets": (ample, other)})
    plan = await plan_spending(within, DAYS)
    assert plan.allowed
    assert "Budgets: they allow it." in list(sentences(plan))
    beyond = settings.model_copy(update={"budgets": (ample, scarce)})
    (why,) = (await plan_spending(beyond, DAYS)).objections or ()
    assert "left of budget project:a (month)" in why
    await run(within, DAYS[:1])
    assert (await plan_spending(within, DAYS)).allowed, "what was spent is in the cache"
    more = await plan_spending(within, DAYS, model="openai/text-embedding-3-large")
    assert not more.allowed, "a new space needs all of it, and some is spent"


def _plan(price: int | None, batch: int | None, tokens: int, rates: Rates) -> SpendingPlan:
    space = find_model("text-embedding-3-small").space
    figures = {
        Account("p", "", day): Figures(3, 2, 0, 0, 0, 2, tokens) for day in ("2026-01-01", DAYS[1])
    }
    checked = date(2026, 11, 22)
    return SpendingPlan(
        space, tuple(DAYS[:2]), price, batch, checked, figures, 2, tokens, rates, None
    )


def test_an_unknown_price_is_shown_as_unknown() -> None:
    assert cost(5, None) is None
    assert cost(0, None) == 0
    plan = _plan(None, None, 10, Rates())
    assert plan.cost_nano_usd is None
    assert "Cost: unknown, unknown through the Batch API" in "\n".join(sentences(plan))


def test_a_plan_in_words() -> None:
    plan = _plan(20, 10, 1_000_000, Rates(1_000_000, 10))
    assert list(sentences(plan)) == [
        "openai/text-embedding-3-small@1536: 4 texts to embed, 2,000,000 tokens in 2 requests.",
        "Cost: $0.040000, $0.020000 through the Batch API (prices as of 2026-11-22).",
        "Time: about 60 s at 1,000,000 tokens a minute and 10 requests a minute.",
        "Budgets: none is set.",
    ]
    assert table(plan, 1).splitlines()[2:] == [
        "| 2026-01-01 | p | 3 | 2 | 1,000,000 | $0.020000 | $0.010000 |",
        "| … | 1 more | | | | | |",
    ]
