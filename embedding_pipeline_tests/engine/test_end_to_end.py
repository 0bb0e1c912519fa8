"""The four steps on files of several days: every vector is its text's, every cent is known."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from embedding_pipeline.assembly.parts import build_counter, build_datasets, build_source
from embedding_pipeline.assembly.reading import read_vectors
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.pipeline import checks
from embedding_pipeline.pipeline.cost import build_cost_summary, ledger_balances
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.pipeline.raw import build_raw_chunks
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline_tests.engine.quick import MODEL, QuickClock, settings_for
from embedding_pipeline_tests.fake_openai.replies import expected_vector
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI, listening

pytestmark = pytest.mark.anyio

DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]


def _text(day: int, row: int) -> str:
    """Some texts are the same every day, some are copies within a day but for case and space."""
    if row % 5 == 0:
        return f"the same listing every day, number {row}"
    if row % 7 == 0:
        return f"Copy  of the day {day}" if row % 2 else f"copy of THE day {day}"
    return f"day {day} row {row}: on the embedding of text 文字 🙂"


def _write_days(folder: Path, rows: int) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for number, day in enumerate(DAYS):
        texts[day] = [_text(number, row) for row in range(rows)]
        with gzip.open(folder / f"{day}.jsonl.gz", "wt") as file:
            for row, text in enumerate(texts[day]):
                project = "a" if row % 3 else "b"
                line = {"id": f"{day}/{row}", "text": text, "project": project, "user": "u"}
                file.write(json.dumps(line) + "\n")
    return texts


def _settings(folder: Path, fake: FakeOpenAI, dimensions: int | None = None) -> Settings:
    return settings_for(
        folder / "data",
        fake.base_url,
        source={"kind": "files", "path": f"{folder}/{{date}}.jsonl.gz"},
        partitions={"start_date": DAYS[0]},
        embedding={"dimensions": dimensions},
        requests={"max_inputs": 40},
    )


async def _run_days(settings: Settings, days: Sequence[str]) -> None:
    datasets, clock = build_datasets(settings), SystemClock()
    source, counter = build_source(settings), build_counter(settings)
    for day in days:
        build_raw_chunks(source, datasets, counter, settings.chunking, day, clock=clock)
        build_deduped_chunks(datasets, settings.dedup, day)
    async with EmbeddingService(settings=settings, api_key=KEY, clock=QuickClock()) as service:
        for report in await build_embeddings(service, datasets, days):
            assert report.chunks == report.embedded + report.cached + report.quarantined
        for day in days:
            await _check(service, settings, day)


async def _check(service: EmbeddingService, settings: Settings, day: str) -> None:
    datasets = build_datasets(settings)
    report, _ = await build_cost_summary(service, datasets, day)
    assert report.chunks == datasets.raw_chunks(day).rows()
    balance = await ledger_balances(service, datasets, day)
    assert balance.passed, balance.description
    held = await service.quarantined(day)
    verdicts = checks.all_checks(
        datasets, service.space, service.dimensions, day, quarantined=held, deferred=frozenset()
    )
    for name, verdict in verdicts.items():
        assert verdict.passed, f"{name}: {verdict.description}"


@pytest.mark.parametrize("dimensions", [None, 256])
async def test_every_row_has_the_vector_of_its_text(dimensions: int | None, tmp_path: Path) -> None:
    texts = _write_days(tmp_path, 90)
    async with listening(FakeOpenAI()) as fake:
        settings = _settings(tmp_path, fake, dimensions)
        await _run_days(settings, DAYS)
        distinct = {text for day in DAYS for text in texts[day]}
        assert fake.books.billed_twice == 0
        assert fake.books.inputs <= len(distinct), "copies but for case and space are not sent"
        table = read_vectors(DAYS[0], DAYS[-1], with_text=True, settings=settings)
    assert table.num_rows == 3 * 90, "every raw chunk has its vector"
    representatives = {
        row: text
        for day in DAYS
        for row, text in zip(*_representatives(settings, day), strict=True)
    }
    vectors = matrix_of(table.column("vector").combine_chunks())
    wanted = dimensions or 1536
    checked = 0
    for chunk, vector in zip(table.column("chunk_id").to_pylist(), vectors, strict=True):
        if chunk in representatives:
            expected = expected_vector(MODEL, representatives[chunk], wanted)
            assert np.allclose(vector, expected, atol=1e-7), chunk
            checked += 1
    assert checked == len(representatives)


def _representatives(settings: Settings, day: str) -> tuple[list[str], list[str]]:
    batches = build_datasets(settings).deduped_chunks(day).iter_batches(("chunk_id", "text"))
    ids, texts = [], []
    for batch in batches:
        ids += batch.column("chunk_id").to_pylist()
        texts += batch.column("text").to_pylist()
    return ids, texts


async def test_a_rerun_and_a_change_of_dimensions_cost_nothing(tmp_path: Path) -> None:
    _write_days(tmp_path, 60)
    async with listening(FakeOpenAI()) as fake:
        await _run_days(_settings(tmp_path, fake), DAYS)
        requests = fake.books.requests
        await _run_days(_settings(tmp_path, fake), DAYS)
        await _run_days(_settings(tmp_path, fake, 256), DAYS)
        await _run_days(_settings(tmp_path, fake), DAYS)
        assert fake.books.requests == requests


async def test_a_day_without_data_is_an_empty_partition(tmp_path: Path) -> None:
    _write_days(tmp_path, 10)
    async with listening(FakeOpenAI()) as fake:
        settings = _settings(tmp_path, fake)
        await _run_days(settings, ["2026-01-04"])
        assert fake.books.requests == 0
    assert read_vectors("2026-01-04", "2026-01-04", settings=settings).num_rows == 0
