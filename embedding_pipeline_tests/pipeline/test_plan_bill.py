"""``plan`` against the later bill on real text: listings, six languages and scripts, code.

The API that bills is the fake; it counts cl100k tokens. PLAN_DAYS=60 takes all listings.
"""

import gzip
import json
import os
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from embedding_pipeline.assembly.planning import plan_spending
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline_tests.engine.quick import settings_for
from embedding_pipeline_tests.fake_openai.server import FakeOpenAI
from embedding_pipeline_tests.pipeline.test_plan import run

pytestmark = pytest.mark.anyio

FIRST = date(2026, 1, 1)
LISTED_DAYS = int(os.environ.get("PLAN_DAYS", "4"))


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as file:
        yield from map(json.loads, file)


def write(folder: Path, days: dict[str, list[dict[str, Any]]]) -> list[str]:
    for day, rows in days.items():
        (folder / f"{day}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return sorted(days)


def spread(rows: list[dict[str, Any]], days: int = 3) -> dict[str, list[dict[str, Any]]]:
    """Rows over some days; each day also has some of the day before."""
    share = -(-len(rows) // days)
    return {
        (FIRST + timedelta(days=n)).isoformat(): rows[max(n * share - 20, 0) : (n + 1) * share]
        for n in range(days)
    }


def listings(data: Path) -> dict[str, list[dict[str, Any]]]:
    days: dict[str, list[dict[str, Any]]] = {}
    for row in lines_of(data / "arxiv_daily.jsonl.gz"):
        if row["date"] not in days and len(days) == LISTED_DAYS:
            break
        kept = {"id": row["id"], "text": row["text"], "project": row["source"]}
        days.setdefault(row["date"], []).append(kept)
    return days


def languages(data: Path) -> dict[str, list[dict[str, Any]]]:
    rows = [
        {"id": f"{language}/{row['_id']}", "text": row["text"], "project": language}
        for language in ("en", "es", "ar", "zh")
        for row in lines_of(data / "retrieval" / f"xquad_{language}" / "corpus.jsonl.gz")
    ]
    return spread(rows)


def code(data: Path) -> dict[str, list[dict[str, Any]]]:
    sections = lines_of(data / "retrieval" / "claudedocs" / "corpus.jsonl.gz")
    rows = [{"id": row["_id"], "text": row["text"], "project": "docs"} for row in sections]
    messages = lines_of(data / "neardup_nova" / "docs.jsonl.gz")
    for number, row in enumerate(messages):
        if number % 8 == 0:
            rows.append({"id": row["id"], "text": row["text"], "project": "nova"})
    return spread(rows)


def oddities(data: Path) -> dict[str, list[dict[str, Any]]]:
    rows = [
        {"id": str(number), "text": row["text"], "project": "odd"}
        for name in ("strings", "long_docs")
        for number, row in enumerate(lines_of(data / "nasty" / f"{name}.jsonl.gz"))
        if row.get("text")
    ]
    return spread(rows)


def settings_in(folder: Path, fake: FakeOpenAI, first: str, scope_days: int) -> Settings:
    return settings_for(
        folder / "data",
        fake.base_url,
        source={"kind": "files", "path": f"{folder}/{{date}}.jsonl"},
        partitions={"start_date": first},
        retry={"timeout_seconds": 60},
        dedup={"scope_days": scope_days},
    )


@pytest.mark.parametrize(
    ("corpus", "scope_days"),
    [(listings, 0), (listings, 2), (languages, 0), (code, 1), (oddities, 0)],
)
async def test_the_bill_is_the_plan(
    corpus: Any, scope_days: int, shared_data: Path, tmp_path: Path, fake_openai: FakeOpenAI
) -> None:
    days = write(tmp_path, corpus(shared_data))
    settings = settings_in(tmp_path, fake_openai, days[0], scope_days)
    plan = await plan_spending(settings, days)
    booked = await run(settings, days)
    assert fake_openai.books.tokens > 10_000
    assert plan.total.input_tokens == pytest.approx(fake_openai.books.tokens, rel=0.01)
    assert plan.cost_nano_usd == pytest.approx(fake_openai.books.cost_nano_usd, rel=0.01)
    assert {who: n.input_tokens for who, n in plan.figures.items() if n.input_tokens} == booked
    assert plan.requests == pytest.approx(fake_openai.books.requests, abs=2)
