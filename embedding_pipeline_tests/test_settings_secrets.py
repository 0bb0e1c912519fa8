"""Secrets come from variables, or from files that variables name."""

from pathlib import Path

import pytest

from embedding_pipeline.errors import SettingsError
from embedding_pipeline.settings.environment import api_key, source_url
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.sources.config import SourceConfig

STATE = "EMBEDDING_PIPELINE_STATE_URL"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_holds_what_the_variable_would(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "key").write_text("sk-from-a-file\n")
    (folder / "state").write_text("sqlite:////srv/state.db\n")
    (folder / "source").write_text("postgresql://me:geheim@host/x")
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(folder / "key"))
    monkeypatch.setenv(f"{STATE}_FILE", str(folder / "state"))
    monkeypatch.setenv("NOTES_FILE", str(folder / "source"))
    settings = load_settings()
    key = api_key(settings.provider)
    assert key is not None
    assert key.get_secret_value() == "sk-from-a-file"
    assert settings.state == "sqlite:////srv/state.db"
    query = "select id, text from x where :start < :end"
    source = SourceConfig(kind="sql", query=query, url_env="NOTES")
    assert source_url(source) == "postgresql://me:geheim@host/x"


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY_FILE", "/no/such/file")
    with pytest.raises(SettingsError, match=r"OPENAI_API_KEY_FILE: /no/such/file cannot be read"):
        api_key(load_settings().provider)


def test_two_words_on_one_secret_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "state").write_text("sqlite:////srv/state.db")
    monkeypatch.setenv(f"{STATE}_FILE", str(folder / "state"))
    monkeypatch.setenv(STATE, "sqlite:////elsewhere.db")
    with pytest.raises(SettingsError, match="are both set; take one away"):
        load_settings()


def test_only_settings_that_exist_have_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_PIPELINE_STAT_URL_FILE", "x")
    with pytest.raises(SettingsError, match="no such setting"):
        load_settings()
