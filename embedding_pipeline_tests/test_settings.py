"""Settings: every source of a value, and every mistake answered with where, what and how."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedding_pipeline.embedders.config import ProviderConfig
from embedding_pipeline.errors import SettingsError
from embedding_pipeline.settings.demo_start import DEMO_DAYS, pin_demo_start
from embedding_pipeline.settings.environment import api_key, base_url
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, content: Mapping[str, Any] | str, name: str = "pipeline.yaml") -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(dict(content)))
    return file


# --- where values come from ----------------------------------------------------------------------


def test_without_a_file_the_defaults_hold() -> None:
    settings = load_settings()
    assert settings.model_spec.is_local
    assert settings.dimensions == settings.model_spec.native_dimensions
    assert settings.provider.kind == "openai"
    assert (settings.on_outage, settings.batch_api.mode) == ("defer", "off")


def test_the_file_that_comes_with_the_project_is_valid(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBEDDING_PIPELINE_CONFIG", str(repository / "pipeline.yaml"))
    assert load_settings().source.kind == "demo"


EVERYTHING: dict[str, Any] = {
    "data_dir": "data",
    "state_url": "sqlite:////var/lib/state.db",
    "redis_url": "redis://localhost:6379/0",
    "partitions": {"start_date": date(2026, 1, 2), "timezone": "Europe/Berlin"},
    "source": {"kind": "files", "path": "x/{date}/*.jsonl", "fields": {"id": "key"}},
    "chunking": {"max_tokens": 256, "overlap_tokens": 16},
    "dedup": {"near": False, "threshold": 0.8, "scope_days": 0},
    "embedding": {"model": "openai/text-embedding-3-large", "dimensions": 256},
    "providers": [{"name": "mine", "kind": "compatible", "base_url": "http://localhost:1/v1"}],
    "requests": {"max_inputs": 100, "target_tokens": 9000, "max_wait_ms": 0},
    "retry": {"max_attempts": 3, "max_seconds": 10, "timeout_seconds": 1.5},
    "limits": {"max_in_flight": 2, "tokens_per_minute": 1000},
    "tenants": [{"project": "search", "weight": 2.0, "priority": "urgent"}],
    "cache": {"memory_mb": 0, "dtype": "float16"},
    "budgets": [],
    "prices": [],
    "on_outage": "degrade",
    "batch_api": {"mode": "off", "deadline_hours": 30, "enqueued_tokens": 100, "min_tokens": 5},
    "alerts": {},
    "logs": {"format": "json"},
    "traces": {"enabled": True},
    "spaces": {"max_auto_cost_usd": 2, "keep_days": 7, "gate": {"k": 5}},
}


OPENAI = "embedding: {model: openai/text-embedding-3-small}\n"


def test_every_key_can_be_set_by_the_file(folder: Path) -> None:
    assert set(EVERYTHING) == set(Settings.model_fields)
    write(folder, EVERYTHING)
    settings = load_settings()
    assert settings.start_date == date(2026, 1, 2)
    assert settings.source.fields.id == "key"
    assert settings.source.fields.text == "text"
    assert (settings.dimensions, settings.model_spec.native_dimensions) == (256, 3072)
    assert settings.provider.base_url == "http://localhost:1/v1"
    assert settings.retry.timeout_seconds == 1.5
    assert settings.cache.dtype == "float16"
    assert settings.state == "sqlite:////var/lib/state.db"


def test_every_key_can_be_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for section, value in EVERYTHING.items():
        if isinstance(value, dict):
            for field, own in value.items():
                text = json.dumps(own) if isinstance(own, dict) else str(own)
                monkeypatch.setenv(f"EMBEDDING_PIPELINE_{section}__{field}".upper(), text)
        else:
            text = json.dumps(value) if isinstance(value, list) else str(value)
            monkeypatch.setenv(f"EMBEDDING_PIPELINE_{section.upper()}", text)
    from_environment = load_settings().model_dump()
    monkeypatch.undo()
    assert from_environment == load_settings(EVERYTHING).model_dump()


def test_the_environment_goes_before_the_file_field_by_field(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"retry": {"max_attempts": 3, "max_seconds": 10}})
    monkeypatch.setenv("EMBEDDING_PIPELINE_RETRY__MAX_ATTEMPTS", "5")
    settings = load_settings()
    assert (settings.retry.max_attempts, settings.retry.max_seconds) == (5, 10)


def test_what_the_caller_names_goes_before_everything(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"retry": {"max_seconds": 10}})
    monkeypatch.setenv("EMBEDDING_PIPELINE_RETRY__MAX_ATTEMPTS", "5")
    settings = load_settings({"retry": {"max_attempts": 7}})
    assert (settings.retry.max_attempts, settings.retry.max_seconds) == (7, 10)


def test_null_in_the_environment_takes_back_what_the_file_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"embedding": {"model": "openai/text-embedding-3-small", "dimensions": 256}})
    monkeypatch.setenv("EMBEDDING_PIPELINE_EMBEDDING__DIMENSIONS", "null")
    assert load_settings().dimensions == 1536


def test_another_file_is_named_by_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"data_dir": "wrong"})
    (folder / "conf").mkdir()
    file = write(folder / "conf", {"data_dir": "right"}, "other.yaml")
    monkeypatch.setenv("EMBEDDING_PIPELINE_CONFIG", str(file))
    assert load_settings().data_path == folder / "conf" / "right"


@pytest.mark.parametrize(
    "content", ["", "# only a comment\n", "cache:\nretry:\n", "\ufeffdedup:\n"]
)
def test_empty_files_and_sections_are_the_defaults(folder: Path, content: str) -> None:
    write(folder, content)
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("off", "off"),
        ("'off'", "off"),
        ("false", "off"),
        ("no", "off"),
        ("on", "on"),
        ("auto", "auto"),
        ("{mode: on, min_tokens: 7}", "on"),
        ("{mode: off}", "off"),
    ],
)
def test_what_yaml_makes_of_on_and_off_is_understood(folder: Path, word: str, meant: str) -> None:
    write(folder, f"{OPENAI}batch_api: {word}\n")
    assert load_settings().batch_api.mode == meant


def test_the_mode_of_the_batch_api_as_a_bare_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, f"{OPENAI}batch_api: {{deadline_hours: 50}}\n")
    monkeypatch.setenv("EMBEDDING_PIPELINE_BATCH_API", "on")
    monkeypatch.setenv("EMBEDDING_PIPELINE_BATCH_API__MIN_TOKENS", "7")
    found = load_settings().batch_api
    assert (found.mode, found.min_tokens, found.deadline_hours) == ("on", 7, 50)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(load_settings(), "data_dir", "elsewhere")  # noqa: B010 - mypy knows better


# --- places --------------------------------------------------------------------------------------


def test_relative_places_start_at_the_settings_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "conf").mkdir()
    file = write(folder / "conf", {"data_dir": "../data", "state_url": "sqlite:///state/x.db"})
    monkeypatch.setenv("EMBEDDING_PIPELINE_CONFIG", str(file))
    settings = load_settings()
    assert settings.data_path == folder / "data"
    assert settings.state == f"sqlite:///{folder}/conf/state/x.db"


def test_without_a_file_they_start_at_the_working_directory(folder: Path) -> None:
    settings = load_settings({"data_dir": "data"})
    assert settings.data_path == folder / "data"
    assert settings.state == f"sqlite:///{folder}/data/state.db"


def test_an_absolute_place_and_a_home_are_taken_as_they_are(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings({"data_dir": "/srv/data"}).data_path == Path("/srv/data")
    monkeypatch.setenv("HOME", str(folder / "home"))
    assert load_settings({"data_dir": "~/data"}).data_path == folder / "home" / "data"


# --- the demo's first day ------------------------------------------------------------------------


def test_the_demo_begins_a_week_ago_and_stays_there(folder: Path) -> None:
    before = datetime.now(UTC).date()
    settings = load_settings()
    week = timedelta(days=DEMO_DAYS)
    assert before - week <= settings.start_date <= datetime.now(UTC).date() - week
    settings.data_path.mkdir()
    pinned = settings.data_path / "demo_start_date"
    pinned.write_text("2026-01-05\n")
    pin_demo_start(settings)
    assert settings.start_date == date(2026, 1, 5)
    assert pinned.read_text() == "2026-01-05\n"


@pytest.mark.parametrize("torn", [None, "", "2026-0"])
def test_it_is_kept_from_the_first_run_on_also_after_a_torn_write(torn: str | None) -> None:
    settings = load_settings()
    pinned = settings.data_path / "demo_start_date"
    if torn is not None:
        pinned.parent.mkdir()
        pinned.write_text(torn)
    pin_demo_start(settings)
    assert date.fromisoformat(pinned.read_text()) == settings.start_date
    assert [file.name for file in settings.data_path.iterdir()] == ["demo_start_date"]


def test_a_day_that_is_set_is_not_kept_aside() -> None:
    settings = load_settings({"partitions": {"start_date": "2026-03-01"}})
    pin_demo_start(settings)
    assert settings.start_date == date(2026, 3, 1)
    assert not settings.data_path.exists()


def test_a_folder_that_cannot_be_made_says_so(folder: Path) -> None:
    (folder / "file").write_text("in the way")
    with pytest.raises(SettingsError, match=r"data_dir: .* cannot be written"):
        pin_demo_start(load_settings({"data_dir": "file/data"}))


# --- keys and addresses --------------------------------------------------------------------------


def provider(**fields: Any) -> ProviderConfig:
    return ProviderConfig(**{"name": "p", "kind": "openai", **fields})


def test_the_key_is_in_the_variable_the_provider_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert api_key(provider()) is None
    monkeypatch.setenv("OPENAI_API_KEY", "  ")
    assert api_key(provider()) is None
    monkeypatch.setenv("OPENAI_API_KEY", " sk-1 \n")
    monkeypatch.setenv("OTHER", "sk-2")
    first, second = api_key(provider()), api_key(provider(api_key_env="OTHER"))
    assert first is not None
    assert second is not None
    assert (first.get_secret_value(), second.get_secret_value()) == ("sk-1", "sk-2")
    assert "sk-1" not in repr(first)


def test_openai_base_url_is_honoured_where_the_settings_say_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert base_url(provider()) is None
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:8000/v1")
    assert base_url(provider()) == "http://localhost:8000/v1"
    assert base_url(provider(base_url="https://mine/v1")) == "https://mine/v1"
    assert base_url(provider(kind="compatible", base_url="https://x/v1")) == "https://x/v1"
    assert base_url(provider(kind="azure")) is None


def test_an_address_without_a_scheme_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "localhost:8000/v1")
    with pytest.raises(SettingsError, match="OPENAI_BASE_URL: must begin with http:// or https://"):
        base_url(provider())


def test_no_password_is_shown_by_the_settings_themselves() -> None:
    settings = load_settings(
        {"state_url": "postgresql://me:geheim@h/d", "redis_url": "redis://:geheim@h"}
    )
    assert "geheim" not in repr(settings)
    assert "geheim" not in str(settings)
