"""The cache's tiers under a whole service: right vectors, right books, whatever goes away."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding_pipeline.assembly.parts import build_counter, build_datasets, build_source
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.cache import stats
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.pipeline.cost import build_cost_summary, ledger_balances
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.pipeline.raw import build_raw_chunks
from embedding_pipeline.records import Account
from embedding_pipeline.service.work import FilledBatch, Progress, WorkBatch
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.engine.quick import MODEL, settings_for
from embedding_pipeline_tests.fake_openai.replies import expected_vector
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI, listening
from embedding_pipeline_tests.servers import (  # noqa: F401 - fixtures
    redis_in,
    redis_server,
    redis_url,
    server_folder,
)

pytestmark = pytest.mark.anyio

DAYS = ["2026-01-01", "2026-01-02"]
PER_BATCH = 100


def text(number: int) -> str:
    return f"chunk {number} of a text that is asked for again"


def settings(folder: Path, fake: FakeOpenAI, **sections: Mapping[str, Any]) -> Settings:
    """Patient ones: a busy machine is no outage."""
    patience = {"retry": {"timeout_seconds": 60}, "requests": {"max_inputs": 100}}
    return settings_for(folder, fake.base_url, **{**patience, **sections})


def service_on(chosen: Settings) -> EmbeddingService:
    return EmbeddingService(settings=chosen, api_key=KEY)


async def _batches(texts: Sequence[str]) -> AsyncIterator[WorkBatch]:
    for start in range(0, len(texts), PER_BATCH):
        part = texts[start : start + PER_BATCH]
        tokens = np.array([len(one) // 4 + 1 for one in part], np.int32)
        names = [str(start + n) for n in range(len(part))]
        yield WorkBatch(DAYS[0], names, part, tokens, [Account("p", "", DAYS[0])] * len(part))


async def embedded(
    service: EmbeddingService,
    texts: Sequence[str],
    on_progress: Callable[[Progress], None] | None = None,
) -> np.ndarray:
    filled: list[FilledBatch] = []
    run = service.bulk(_batches(texts), on_progress=on_progress)
    async with aclosing(run.batches()) as batches:
        filled.extend([batch async for batch in batches])
    return np.concatenate([batch.vectors for batch in filled])


def right(vectors: np.ndarray, texts: Sequence[str], model: str = MODEL, width: int = 1536) -> bool:
    expected = np.stack([expected_vector(model, one, width) for one in texts])
    return bool(np.allclose(vectors, expected, rtol=0, atol=1e-7))


# --- each text once, and never another's vector --------------------------------------------------


@pytest.mark.parametrize("online", [False, True], ids=["bulk", "online"])
async def test_of_1000_texts_with_300_repeats_700_are_billed(online: bool, tmp_path: Path) -> None:
    texts = [text(n) for n in np.random.default_rng(3).permutation(1000) % 700]
    async with listening(FakeOpenAI()) as fake, service_on(settings(tmp_path, fake)) as service:
        vectors = await (service.embed_many(texts) if online else embedded(service, texts))
        assert right(vectors, texts)
        assert (fake.books.inputs, len(fake.books.billed)) == (700, 700)


async def test_switching_model_and_dimensions_never_brings_a_wrong_vector(tmp_path: Path) -> None:
    """There and back: another model is bought once, other dimensions and the way back never."""
    texts = [text(n) for n in range(60)]
    large = "text-embedding-3-large"
    steps = [(MODEL, 1536), (large, 3072), (MODEL, 512), (large, 256), (large, 3072), (MODEL, 1536)]
    bought: list[int] = []
    async with listening(FakeOpenAI()) as fake:
        for model, width in steps:
            before = fake.books.requests
            named = {"model": f"openai/{model}", "dimensions": width}
            async with service_on(settings(tmp_path, fake, embedding=named)) as service:
                vectors = await service.embed_many(texts)
                again = await service.embed_many(texts)
            assert right(vectors, texts, model, width)
            assert (again == vectors).all()
            bought.append(fake.books.requests - before)
    assert [count > 0 for count in bought] == [True, True, False, False, False, False]


# --- the books hold whoever serves ---------------------------------------------------------------


def _write_days(folder: Path, rows: int) -> None:
    for day in DAYS:
        lines = [json.dumps({"id": str(n), "text": text(n), "project": "p"}) for n in range(rows)]
        (folder / f"{day}.jsonl").write_text("\n".join(lines) + "\n")


async def test_what_redis_serves_is_in_the_books_and_in_the_statistics(
    tmp_path: Path,
    redis_url: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMBEDDING_PIPELINE_REDIS_URL", redis_url)
    _write_days(tmp_path, 40)
    async with listening(FakeOpenAI()) as fake:
        chosen = settings(
            tmp_path / "data",
            fake,
            source={"kind": "files", "path": f"{tmp_path}/{{date}}.jsonl"},
            partitions={"start_date": DAYS[0]},
        )
        datasets, source = build_datasets(chosen), build_source(chosen)
        for day in DAYS:
            counter = build_counter(chosen)
            build_raw_chunks(source, datasets, counter, chosen.chunking, day, clock=SystemClock())
            build_deduped_chunks(datasets, chosen.dedup, day)
        sources: list[list[str]] = []
        for day in DAYS:
            async with service_on(chosen) as service:
                await build_embeddings(service, datasets, [day])
                report, table = await build_cost_summary(service, datasets, day)
                sources.append(table.column("source").to_pylist())
                balance = await ledger_balances(service, datasets, day)
                assert balance.passed, balance.description
                assert report.chunks == 40
        assert sources == [["api"], ["cache"]]
        assert fake.books.inputs == 40
    with Store(chosen.state, FakeClock()) as store:
        uses = {use.tier: use for use in await store.read(stats.usage)}
    assert (uses["redis"].hits, uses["redis"].misses) == (40, 40)
    assert (uses["database"].hits, uses["database"].misses) == (0, 40)


async def test_online_callers_are_counted_with_the_memory_tier(tmp_path: Path) -> None:
    async with listening(FakeOpenAI()) as fake:
        chosen = settings(tmp_path, fake)
        async with service_on(chosen) as service:
            for project in ("a", "b", "b"):
                await service.generate_embedding(text(0), project=project)
        async with service_on(chosen) as service:
            await service.generate_embedding(text(0), project="a")
    with Store(chosen.state, FakeClock()) as store:
        uses = await store.read(stats.usage)
    counts = {(use.project, use.tier): (use.hits, use.misses) for use in uses}
    assert counts == {
        ("a", "memory"): (0, 2),
        ("a", "database"): (1, 1),
        ("b", "memory"): (2, 0),
    }


# --- Redis goes away and comes back --------------------------------------------------------------


@pytest.mark.parametrize("limited", [False, True], ids=["no limits", "limits kept in it"])
async def test_redis_stopped_and_started_in_mid_run(
    limited: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text(n) for n in range(400)]
    with server_folder() as folder, ExitStack() as running:
        monkeypatch.setenv("EMBEDDING_PIPELINE_REDIS_URL", running.enter_context(redis_in(folder)))
        stopped = asyncio.Event()

        def stop(progress: Progress) -> None:
            if progress.done >= 100 and not stopped.is_set():
                running.close()
                stopped.set()

        async def start_again() -> None:
            await stopped.wait()
            await asyncio.sleep(0.5)
            await asyncio.to_thread(running.enter_context, redis_in(folder))

        fake = FakeOpenAI()
        fake.options.latency = 0.02
        if limited:
            fake.limit(rpm=10_000, tpm=10_000_000)
        async with listening(fake):
            small = settings(
                tmp_path, fake, requests={"max_inputs": 10}, limits={"max_in_flight": 2}
            )
            async with service_on(small) as service:
                starting = asyncio.create_task(start_again())
                vectors = await embedded(service, texts, stop)
                await starting
                assert right(vectors, texts)
                assert right(await embedded(service, texts), texts)
            assert (fake.books.inputs, fake.books.billed_twice) == (400, 0)
