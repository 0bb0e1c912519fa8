"""``cost_summary``, column by column, for every way a chunk can come by its vector."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.errors import DataError
from embedding_pipeline.limits.config import LimitsConfig
from embedding_pipeline.pipeline.cost import (
    build_cost_summaries,
    build_cost_summary,
    ledger_balances,
)
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.planning.inputs import prefix_within
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.schema import ledger
from embedding_pipeline.tokens import default_counter
from embedding_pipeline_tests.engine.quick import QuickClock
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI
from embedding_pipeline_tests.pipeline.test_plan import chunks_of, make_settings

pytestmark = pytest.mark.anyio

FIRST, SECOND, NEVER = "2026-01-01", "2026-01-02", "2026-01-03"
LONG = "one of many words " * 3000
POISON = "POISON is refused"
ROWS = {
    FIRST: [
        ("a", "shared by all"),
        ("a", "Shared  BY all"),
        ("a", "only in a"),
        ("a", LONG),
        ("b", "shared by all"),
        ("b", "only in b"),
    ],
    SECOND: [
        ("a", "shared by all"),
        ("a", "new on the second day"),
        ("b", LONG),
        ("b", POISON),
        ("b", POISON),
    ],
}
Summary = Mapping[tuple[str, str], Mapping[str, Any]]


def tokens(*texts: str) -> int:
    return int(default_counter().count(texts).sum())


@pytest.fixture(params=["truncate", "split_mean"])
def settings(request: pytest.FixtureRequest, tmp_path: Path, fake_openai: FakeOpenAI) -> Settings:
    for day, rows in ROWS.items():
        lines = [
            {"id": number, "text": text, "project": project, "user": f"{project}-user"}
            for number, (project, text) in enumerate(rows)
        ]
        (tmp_path / f"{day}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    fake_openai.fault(Fault("400_input", marker="POISON"))
    made = make_settings(tmp_path, fake_openai, oversize=request.param)
    ample = LimitsConfig(tokens_per_minute=10**8, requests_per_minute=10**6)
    return made.model_copy(update={"limits": ample})


async def summaries(settings: Settings) -> dict[str, Summary]:
    """Both days made, and their summaries by project and source; the books balance.

    Together or one by one they are the same, whatever is wrong with another day.
    """
    datasets = build_datasets(settings)
    await chunks_of(settings, list(ROWS))
    found: dict[str, Summary] = {}
    async with EmbeddingService(settings=settings, api_key=KEY, clock=QuickClock()) as service:
        await build_embeddings(service, datasets, list(ROWS))
        together = await build_cost_summaries(service, datasets, [NEVER, *ROWS])
        assert list(together) == [NEVER, *ROWS]
        assert isinstance(together[NEVER], DataError)
        for day in ROWS:
            report, table = await build_cost_summary(service, datasets, day)
            assert together[day] == (report, table)
            found[day] = {(row["project"], row["source"]): row for row in table.to_pylist()}
            verdict = await ledger_balances(service, datasets, day)
            assert verdict.passed, verdict.description
    return found


async def test_every_column_is_right(settings: Settings, fake_openai: FakeOpenAI) -> None:
    found = await summaries(settings)
    rows = [row for summary in found.values() for row in summary.values()]
    cut = settings.requests.oversize == "truncate"
    prefix = prefix_within(LONG, 8192, default_counter().truncate)
    sent = tokens(prefix if cut else LONG)
    assert {key: row["chunks"] for key, row in found[FIRST].items()} == {
        ("a", "api"): 2,
        ("a", "derived"): 1,
        ("a", "duplicate"): 1,
        ("b", "api"): 1,
        ("b", "cache"): 1,
    }
    assert {key: row["chunks"] for key, row in found[SECOND].items() if row["chunks"]} == {
        ("a", "api"): 1,
        ("a", "cache"): 1,
        ("b", "derived"): 1,
        ("b", "duplicate"): 1,
    }
    billed = found[FIRST]["a", "api"]["input_tokens"]
    assert billed == pytest.approx(tokens("shared by all", "only in a") + sent, abs=8)
    assert found[FIRST]["a", "api"]["cost_nano_usd"] == 20 * billed
    assert found[FIRST]["a", "derived"]["cost_nano_usd"] == 0
    assert found[FIRST]["a", "derived"]["saved_nano_usd"] == 0, "its parts were paid for here"
    assert found[FIRST]["b", "cache"]["saved_nano_usd"] == 20 * tokens("shared by all")
    assert found[FIRST]["a", "duplicate"]["saved_nano_usd"] == 20 * tokens("Shared  BY all")
    assert found[SECOND]["a", "cache"]["saved_nano_usd"] == 20 * tokens("shared by all")
    spared = found[SECOND]["b", "derived"]["saved_nano_usd"]
    assert spared == pytest.approx(20 * sent, rel=0.001), "its parts were paid for by a"
    assert found[SECOND]["b", "duplicate"]["saved_nano_usd"] == 0, "refused, like what it copies"
    assert {row["space"] for row in rows} == {"openai/text-embedding-3-small@1536"}
    assert {row["user"] for row in rows} == {"a-user", "b-user"}
    assert sum(row["requests"] for row in rows) == fake_openai.books.requests
    assert sum(row["cost_nano_usd"] for row in rows) == fake_openai.books.cost_nano_usd
    assert sum(row["wait_seconds"] for row in rows) < 1


async def test_time_waited_is_booked(settings: Settings, fake_openai: FakeOpenAI) -> None:
    fake_openai.fault(Fault("429_tokens", next=1, retry_after=5))
    found = await summaries(settings)
    waited = sum(row["wait_seconds"] for summary in found.values() for row in summary.values())
    assert waited >= 5


async def test_an_entry_that_was_tampered_with_is_found(settings: Settings) -> None:
    await summaries(settings)
    datasets = build_datasets(settings)
    async with EmbeddingService(settings=settings, api_key=KEY, clock=QuickClock()) as service:
        more = update(ledger).values(cost_nano_usd=ledger.c.cost_nano_usd + 1)
        await service.store.write(lambda c: c.execute(more.where(ledger.c.partition == FIRST)))
        verdict = await ledger_balances(service, datasets, FIRST)
        assert not verdict.passed
        assert "tokens × price" in verdict.description
        assert (await ledger_balances(service, datasets, SECOND)).passed
