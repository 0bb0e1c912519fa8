"""A state store that fails in mid-run: a clear error, no damage, and the next run goes on."""

import asyncio
import json
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.errors import StateError
from embedding_pipeline.service.work import Progress
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state import sqlite as sqlite_module
from embedding_pipeline.state import store as store_module
from embedding_pipeline.state.schema import owners
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.engine.quick import MODEL, settings_for
from embedding_pipeline_tests.engine.sharing import batches, text
from embedding_pipeline_tests.engine.troubled import NOT_ALLOWED, TEXTS, own_mounts
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI, listening
from embedding_pipeline_tests.servers import postgres_in, server_folder

MAX_INPUTS, IN_FLIGHT = 25, 4
SAYS = {
    "full": "the disk is full; free space and run again, nothing is damaged",
    "limited": "input/output error",
    "read_only": "check that its folder exists and is writable",
}


@pytest.mark.parametrize("trouble", SAYS)
def test_a_bad_disk_stops_the_run_and_the_next_one_goes_on(
    trouble: str,
    tmp_path: Path,
    fake_openai_process: FakeProcess,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", fake_openai_process.base_url)
    values = {
        "DATA_DIR": str(tmp_path),
        "EMBEDDING__MODEL": f"openai/{MODEL}",
        "REQUESTS__MAX_INPUTS": str(MAX_INPUTS),
        "LIMITS__MAX_IN_FLIGHT": str(IN_FLIGHT),
    }
    for name, value in values.items():
        monkeypatch.setenv(f"EMBEDDING_PIPELINE_{name}", value)
    module = "embedding_pipeline_tests.engine.troubled"
    command = [sys.executable, "-m", module, trouble, str(tmp_path)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        preexec_fn=own_mounts if trouble != "limited" else None,
    )
    if done.returncode == NOT_ALLOWED:
        pytest.skip("this system lets nobody mount a file system of their own")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert SAYS[trouble] in result["error"]
    assert (result["right"], result["file"], result["flights"]) == (TEXTS, "ok", 0)
    books = fake_openai_process.books
    assert len(books.billed) == TEXTS
    assert books.billed_twice <= IN_FLIGHT * MAX_INPUTS


def _settings(folder: Path, fake: FakeOpenAI) -> Settings:
    return settings_for(
        folder,
        fake.base_url,
        retry={"timeout_seconds": 60},
        requests={"max_inputs": MAX_INPUTS},
        limits={"max_in_flight": IN_FLIGHT},
    )


async def _embed(settings: Settings, texts: list[str], stop: ExitStack | None = None) -> int:
    """Embed; once a third is there, ``stop`` is closed. Returns the rows that came."""

    def look(progress: Progress) -> None:
        if stop is not None and progress.done * 3 >= len(texts):
            stop.close()

    async with EmbeddingService(settings=settings, api_key=KEY) as service:
        run = service.bulk(batches(texts), on_progress=look)
        return sum([len(filled.work) async for filled in run.batches()])


async def _end_of_the_process(settings: Settings) -> None:
    """As if the failed run had had a process of its own: its lease is seen to be over."""
    with Store(settings.state, SystemClock()) as store:
        await store.write(lambda c: c.execute(owners.update().values(expires_at=0)))


@pytest.mark.anyio
async def test_a_database_server_that_goes_down_stops_spending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "PATIENCE_SECONDS", 1.0)
    texts = [text(number) for number in range(400)]
    with server_folder() as folder, ExitStack() as running:
        url = running.enter_context(postgres_in(folder))
        monkeypatch.setenv("EMBEDDING_PIPELINE_STATE_URL", url)
        fake = FakeOpenAI()
        fake.options.latency = 0.02
        async with listening(fake):
            settings = _settings(tmp_path, fake)
            with pytest.raises(StateError, match=r"postgres.*run again when it is up|reached"):
                await _embed(settings, texts, running)
            assert 0 < fake.books.inputs < len(texts)
            spent = fake.books.inputs
            with pytest.raises(StateError):
                await _embed(settings, texts)
            assert fake.books.inputs == spent, "nothing is bought that cannot be kept"
            await asyncio.to_thread(running.enter_context, postgres_in(folder))
            await _end_of_the_process(settings)
            assert await _embed(settings, texts) == len(texts)
            assert len(fake.books.billed) == len(texts)
            assert fake.books.billed_twice <= IN_FLIGHT * MAX_INPUTS


@pytest.mark.anyio
async def test_a_database_that_stays_locked_stops_spending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [text(number) for number in range(200)]
    fake = FakeOpenAI()
    fake.options.latency = 0.02
    async with listening(fake):
        settings = _settings(tmp_path, fake)
        await _embed(settings, texts[:50])
        with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as holder:

            def lock() -> None:
                if not holder.in_transaction:
                    holder.execute("BEGIN IMMEDIATE")

            stop = ExitStack()
            stop.callback(lock)
            with monkeypatch.context() as hurried:
                hurried.setattr(sqlite_module, "BUSY_SECONDS", 2.0)
                with pytest.raises(StateError, match="locked by another process"):
                    await _embed(settings, texts, stop)
            assert fake.books.inputs <= 50 + IN_FLIGHT * MAX_INPUTS + 67
            holder.execute("ROLLBACK")
        await _end_of_the_process(settings)
        assert await _embed(settings, texts) == len(texts)
        assert len(fake.books.billed) == len(texts)
        assert fake.books.billed_twice <= IN_FLIGHT * MAX_INPUTS
