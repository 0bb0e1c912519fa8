"""A backup, restored into an empty server: everything is there, and nothing is paid again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from deploy.backup import dump, restore
from embedding_pipeline.assembly.parts import build_datasets, open_store
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline_tests.engine.chunks import write_deduped
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI, listening
from embedding_pipeline_tests.servers import postgres, postgres_server, postgres_url

__all__ = ["postgres_server", "postgres_url"]

pytestmark = pytest.mark.anyio
DAYS = ("2026-01-01", "2026-01-02")


@pytest.fixture
def empty_url() -> Iterator[str]:
    """An empty database on a server of its own."""
    with postgres() as url:
        yield url


def _settings(folder: Path, url: str, api: str) -> Settings:
    return load_settings(
        {
            "data_dir": str(folder),
            "state_url": url,
            "embedding": {"model": "openai/text-embedding-3-small"},
            "providers": [{"name": "openai", "kind": "openai", "base_url": api}],
        }
    )


async def _make(settings: Settings) -> None:
    datasets = build_datasets(settings)
    for day in DAYS:
        write_deduped(datasets, day, [f"text {number} of {day}" for number in range(50)])
    async with EmbeddingService(settings=settings, api_key=KEY) as service:
        await build_embeddings(service, datasets, DAYS)


def _spent(settings: Settings) -> int:
    with open_store(settings) as store:
        return int(
            store.ask(lambda c: c.scalar(text("SELECT sum(cost_nano_usd) FROM ledger"))) or 0
        )


async def test_after_a_restore_a_rerun_of_everything_makes_no_request(
    tmp_path: Path, postgres_url: str, empty_url: str
) -> None:
    async with listening(FakeOpenAI()) as fake:
        before = _settings(tmp_path / "before", postgres_url, fake.base_url)
        await _make(before)
        asked, spent = fake.books.requests, _spent(before)
        assert asked > 0
        dump(tmp_path / "backup", {"EMBEDDING_PIPELINE_STATE_URL": postgres_url})
        restore(tmp_path / "backup", {"EMBEDDING_PIPELINE_STATE_URL": empty_url})
        after = _settings(tmp_path / "after", empty_url, fake.base_url)
        await _make(after)
        assert fake.books.requests == asked
    assert _spent(after) == spent == fake.books.cost_nano_usd


def test_a_restore_over_what_is_there_is_refused_and_changes_nothing(
    tmp_path: Path, postgres_url: str
) -> None:
    where = {"EMBEDDING_PIPELINE_STATE_URL": postgres_url}
    engine = create_engine(make_url(postgres_url))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE spaces (kept int)"))
    dump(tmp_path, where)
    with pytest.raises(SystemExit, match="already exists"):
        restore(tmp_path, where)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(kept) FROM spaces")) == 0
    engine.dispose()


def test_without_addresses_or_files_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="EMBEDDING_PIPELINE_STATE_URL"):
        dump(tmp_path, {"EMBEDDING_PIPELINE_STATE_URL": "sqlite:///x"})
    with pytest.raises(SystemExit, match=r"there is no .*embedding_pipeline\.dump"):
        restore(tmp_path, {"EMBEDDING_PIPELINE_STATE_URL": "postgresql://nowhere/x"})
