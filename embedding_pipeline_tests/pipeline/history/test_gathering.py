"""What is gathered is what is there: overlap as it was cut, summaries, files of vectors."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.assembly.history import cost_history, write_report
from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.pipeline.cost import build_cost_summary
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.pipeline.history import gathering, what_if
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline_tests.engine.quick import QuickClock, settings_for
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI
from embedding_pipeline_tests.pipeline.test_plan import chunks_of

pytestmark = pytest.mark.anyio

DAYS = ["2026-01-01", "2026-01-02"]
OVERLAP = 12


@pytest.fixture
async def settings(tmp_path: Path, fake_openai: FakeOpenAI) -> Settings:
    """Two finished days: rows on the first, documents that were split on the second."""
    rows = [{"id": n, "text": f"row {n % 4}", "project": "p", "user": "u"} for n in range(6)]
    (tmp_path / DAYS[0]).mkdir()
    (tmp_path / DAYS[0] / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / DAYS[1]).mkdir()
    for name in "ab":
        words = " ".join(f"{name}{number}" for number in range(400))
        (tmp_path / DAYS[1] / f"{name}.txt").write_text(words)
    made = settings_for(
        tmp_path / "data",
        fake_openai.base_url,
        source={"kind": "files", "path": f"{tmp_path}/{{date}}/*"},
        partitions={"start_date": DAYS[0]},
        retry={"timeout_seconds": 60},
        chunking={"max_tokens": 100, "overlap_tokens": OVERLAP},
        embedding={"dimensions": 64},
    )
    await chunks_of(made, DAYS)
    datasets = build_datasets(made)
    async with EmbeddingService(settings=made, api_key=KEY, clock=QuickClock()) as service:
        await build_embeddings(service, datasets, DAYS)
        for day in DAYS:
            await build_cost_summary(service, datasets, day)
    return made


async def test_everything_adds_up(settings: Settings, fake_openai: FakeOpenAI) -> None:
    found = (await cost_history(settings)).history
    assert found.cost_nano_usd == fake_openai.books.cost_nano_usd
    assert sum(row.tokens for row in found.spending) == fake_openai.books.tokens
    assert {row.model for row in found.spending} == {"openai/text-embedding-3-small"}
    assert found.partitions == 2
    assert {(row.project, row.source): row.chunks for row in found.savings}["p", "duplicate"] == 2
    (stored,) = found.stored
    assert (stored.native, stored.dimensions) == (1536, 64)
    assert stored.vectors == sum(row.chunks for row in found.savings) - 2
    assert stored.file_bytes > stored.vectors * 64 * 4


async def test_overlap_is_measured_on_the_text(settings: Settings) -> None:
    overlap = (await cost_history(settings)).history.overlap
    assert overlap is not None
    assert overlap.days == tuple(DAYS)
    datasets = build_datasets(settings)
    chunks = datasets.raw_chunks(DAYS[1]).rows()
    pairs = chunks - 2
    assert 0.5 * OVERLAP * pairs < overlap.repeated_tokens <= OVERLAP * pairs
    assert overlap.cost_nano_usd > 0


async def test_a_damaged_file_does_not_take_the_report_down(settings: Settings) -> None:
    data = settings.data_path
    (data / "cost_summary" / f"{DAYS[0]}.parquet").write_bytes(b"PAR1 torn")
    next((data / "embeddings").glob(f"*/{DAYS[0]}.parquet")).write_bytes(b"PAR1 torn")
    (data / "raw_chunks" / f"{DAYS[0]}.parquet").write_bytes(b"PAR1 torn")
    found = await cost_history(settings)
    assert found.history.partitions == 1
    assert found.history.overlap is None
    assert write_report(settings, found) == str(data / "cost_history" / "report.html")
    assert "Costs of embedding" in (data / "cost_history" / "report.html").read_text()
    assert (data / "cost_history" / "spending.parquet").exists()


async def test_nothing_there_is_an_empty_history(tmp_path: Path) -> None:
    found = await cost_history(settings_for(tmp_path / "none", "http://127.0.0.1:9/v1"))
    assert not found.history.spending
    assert found.advice == ()
    assert not (tmp_path / "none").exists()


@given(st.text("ab ", max_size=60), st.text("ab ", max_size=60), st.integers(16, 40))
def test_the_longest_common_end_and_beginning(left: str, right: str, limit: int) -> None:
    length = gathering.common(left, right, limit)
    possible = [n for n in range(16, limit + 1) if n <= len(right) and left.endswith(right[:n])]
    assert length == max((n for n in possible if n <= len(left)), default=0)


def test_a_space_names_its_model() -> None:
    assert gathering.model_of("local/use#0db566fd@512") == "local/use"


SENTENCE = "the quick brown fox jumps over the lazy dog and runs into the dark green wood again"


async def test_near_copies_that_a_project_paid_for(tmp_path: Path, fake_openai: FakeOpenAI) -> None:
    rows = [
        {"id": n, "text": f"{SENTENCE} {SENTENCE} number {n}", "project": "p"} for n in range(12)
    ]
    rows += [{"id": f"o{n}", "text": f"other text {n} " * 9, "project": "q"} for n in range(12)]
    (tmp_path / f"{DAYS[0]}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = settings_for(
        tmp_path / "data",
        fake_openai.base_url,
        source={"kind": "files", "path": f"{tmp_path}/{{date}}.jsonl"},
        partitions={"start_date": DAYS[0]},
        retry={"timeout_seconds": 60},
        dedup={"near": False, "threshold": 0.8},
    )
    await chunks_of(made, DAYS[:1])
    datasets = build_datasets(made)
    before = sorted(path.name for path in made.data_path.iterdir())
    async with EmbeddingService(settings=made, api_key=KEY, clock=QuickClock()) as service:
        await build_embeddings(service, datasets, DAYS[:1])
    found = await cost_history(made)
    assert found.history.near is not None
    assert found.history.near.threshold == 0.8
    assert found.history.near.chunks == {"p": 11}
    advice = next(one for one in found.advice if one.topic == "near_duplicates")
    assert advice.saves_nano_usd == 20 * found.history.near.tokens["p"]
    assert "dedup.near: true with dedup.threshold: 0.8" in advice.text
    assert {*before, "embeddings", "state.db"} >= {
        path.name for path in made.data_path.iterdir() if not path.name.startswith("state.db-")
    }, "nothing of the second deduplication is left"


@pytest.mark.parametrize(
    ("near", "threshold", "looser"), [(False, 0.9, 0.9), (True, 0.9, 0.8), (True, 0.75, None)]
)
def test_the_next_threshold_to_consider(near: bool, threshold: float, looser: float | None) -> None:
    wanted = what_if.looser(DedupConfig(near=near, threshold=threshold))
    assert (wanted and wanted.threshold) == looser
    assert wanted is None or wanted.near
