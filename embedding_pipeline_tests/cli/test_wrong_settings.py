"""What users get wrong is told in one message that says where and what to do."""

from pathlib import Path

import pytest

from embedding_pipeline_tests.cli.conftest import FILES, Expect, Folder
from embedding_pipeline_tests.cli.inside import InsideFolder

BACKFILL = ("backfill", "--start", "2026-01-01", "--end", "2026-01-02", "--wait")
OPENAI = {"EMBEDDING_PIPELINE_EMBEDDING__MODEL": "openai/text-embedding-3-small"}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty working directory; the commands run in this process."""
    return InsideFolder(tmp_path)


@pytest.mark.parametrize("command", [BACKFILL, ("search", "x"), ("costs",), ("demo",)])
def test_an_unknown_field(folder: Folder, refused: Expect, command: tuple[str, ...]) -> None:
    folder.settings(chunking={"max_token": 100})
    told = refused(folder.run(*command), 2)
    assert "pipeline.yaml" in told
    assert "chunking.max_token" in told
    assert "did you mean max_tokens?" in told


def test_an_unknown_variable(folder: Folder, refused: Expect) -> None:
    told = refused(folder.run("costs", EMBEDDING_PIPELINE_CHUNKS="3"), 2)
    assert "EMBEDDING_PIPELINE_CHUNKS" in told


def test_a_wrong_type(folder: Folder, refused: Expect) -> None:
    folder.settings(requests={"max_inputs": "many"})
    assert "requests.max_inputs" in refused(folder.run("costs"), 2)


def test_a_file_that_is_not_yaml(folder: Folder, refused: Expect) -> None:
    (folder.path / "pipeline.yaml").write_text("source:\n  kind: demo\n path: x")
    assert "pipeline.yaml, line 3" in refused(folder.run("costs"), 2)


def test_a_settings_file_that_is_not_there(folder: Folder, refused: Expect) -> None:
    told = refused(folder.run("costs", EMBEDDING_PIPELINE_CONFIG="nowhere.yaml"), 2)
    assert "nowhere.yaml" in told


@pytest.mark.parametrize("command", [BACKFILL, BACKFILL[:-1]])
def test_an_openai_model_without_a_key(
    folder: Folder, refused: Expect, command: tuple[str, ...]
) -> None:
    folder.settings(**FILES)
    folder.rows("2026-01-01", "a text")
    told = refused(folder.run(*command, **OPENAI), 2)
    assert "OPENAI_API_KEY" in told
    assert "local model" in told


def test_an_unknown_model(folder: Folder, refused: Expect) -> None:
    folder.settings(embedding={"model": "openai/text-embedding-3-smal"})
    assert "did you mean openai/text-embedding-3-small?" in refused(folder.run("costs"), 2)


def test_a_day_before_the_first_partition(folder: Folder, refused: Expect) -> None:
    folder.settings(**FILES)
    told = refused(folder.run("backfill", "--start", "2025-12-31", "--end", "2026-01-02"), 2)
    assert "2025-12-31 is before the first partition, 2026-01-01" in told


@pytest.mark.parametrize("day", ["yesterday", "2026-1-1", "20260101", "2026-02-30"])
def test_a_day_that_is_none(folder: Folder, refused: Expect, day: str) -> None:
    told = refused(folder.run("backfill", "--start", day, "--end", "2026-01-02"), 2)
    assert day in told


def test_days_in_the_wrong_order(folder: Folder, refused: Expect) -> None:
    folder.settings(**FILES)
    told = refused(folder.run("backfill", "--start", "2026-01-03", "--end", "2026-01-02"), 2)
    assert "swap them" in told


def test_an_asset_that_does_not_exist(folder: Folder, refused: Expect) -> None:
    folder.settings(**FILES)
    told = refused(folder.run(*BACKFILL, "--assets", "raw_chunks,vectors"), 2)
    assert "vectors" in told


@pytest.mark.parametrize("path", ["missing/{date}.jsonl", "nosuch://bucket/{date}.jsonl"])
def test_a_path_that_cannot_be_read(folder: Folder, refused: Expect, path: str) -> None:
    folder.settings(**{**FILES, "source": {"kind": "files", "path": path}})
    result = folder.run(*BACKFILL)
    told = refused(result, result.returncode)
    assert result.returncode != 0
    assert "source.path" in told
    assert len(told.splitlines()) <= 3


def test_the_demo_is_for_the_demo_source(folder: Folder, refused: Expect) -> None:
    folder.settings(**FILES)
    assert "embedding-pipeline backfill" in refused(folder.run("demo"), 2)


def test_a_folder_that_may_not_be_written(folder: Folder, refused: Expect) -> None:
    (folder.path / "data_dir").write_text("a file where a folder should be")
    folder.settings(**FILES, data_dir="data_dir")
    folder.rows("2026-01-01", "a text")
    result = folder.run(*BACKFILL)
    assert refused(result, result.returncode)
    assert 0 < result.returncode < 70
