"""``doctor``: every line says what is the case, and what to do when it is bad."""

import json
from typing import Any

import pytest

from embedding_pipeline.cli import providers
from embedding_pipeline_tests.cli.conftest import FILES, Folder
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY
from embedding_pipeline_tests.servers import redis_in, server_folder

OPENAI = {"model": "openai/text-embedding-3-small"}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no provider that is out."""
    monkeypatch.setattr(providers, "PROBE_SECONDS", 300)


def _findings(folder: Folder, code: int, **environment: str) -> dict[str, Any]:
    result = folder.run("doctor", "--json", **environment)
    assert result.returncode == code, result.stderr
    return {finding["subject"]: finding for finding in json.loads(result.stdout)}


def test_all_is_well_on_a_fresh_machine_and_nothing_is_made(folder: Folder) -> None:
    result = folder.run("doctor")
    assert result.returncode == 0, result.stdout
    assert "fail" not in result.stdout
    assert "512 dimensions" in result.stdout
    assert list(folder.path.iterdir()) == []


def test_wrong_settings_are_a_finding(folder: Folder) -> None:
    folder.settings(chunking={"max_token": 3})
    found = _findings(folder, 1)
    assert found["settings"]["status"] == "fail"
    assert "chunking.max_token" in found["settings"]["message"]
    assert found["python"]["status"] == "ok"


def test_a_missing_key_has_a_remedy(folder: Folder) -> None:
    folder.settings(embedding=OPENAI)
    found = _findings(folder, 1)
    assert found["key"]["status"] == "fail"
    assert "OPENAI_API_KEY" in found["key"]["remedy"]


def test_the_provider_is_asked_without_spending(
    folder: Folder,
    fake_openai_process: FakeProcess,  # noqa: F811
) -> None:
    folder.settings(embedding=OPENAI)
    environment = {"OPENAI_BASE_URL": fake_openai_process.base_url, "OPENAI_API_KEY": KEY}
    found = _findings(folder, 0, **environment)
    assert found["provider"]["status"] == "ok"
    assert fake_openai_process.books.tokens == 0


def test_a_provider_out_of_reach_is_told(folder: Folder) -> None:
    folder.settings(embedding=OPENAI)
    nowhere = {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "sk-secret"}
    found = _findings(folder, 1, **nowhere)
    assert found["provider"]["status"] == "fail"
    assert "sk-secret" not in json.dumps(found)


def test_a_source_that_cannot_be_read_is_told(folder: Folder) -> None:
    folder.settings(**FILES)
    found = _findings(folder, 1)
    assert found["source"]["status"] == "fail"
    assert "source.path" in found["source"]["message"]


def test_failed_chunks_are_a_warning(done: Folder) -> None:
    found = _findings(done, 0)
    assert found["state"]["status"] == "warn"
    assert "failed list" in found["state"]["remedy"]


def test_a_state_file_that_is_none_is_told(folder: Folder) -> None:
    state = folder.path / ".embedding_pipeline" / "state.db"
    state.parent.mkdir()
    state.write_text("not a database, but long enough to have been one" * 100)
    found = _findings(folder, 1)
    assert found["state"]["status"] == "fail"


def test_a_redis_that_may_fill_up_is_a_warning(folder: Folder) -> None:
    with server_folder() as place, redis_in(place) as url:
        found = _findings(folder, 0, EMBEDDING_PIPELINE_REDIS_URL=url)
    assert found["redis"]["status"] == "warn"
    assert "maxmemory-policy" in found["redis"]["remedy"]


def test_every_provider_is_asked_and_one_that_is_out_is_a_warning_beside_another(
    folder: Folder,
    fake_openai_process: FakeProcess,  # noqa: F811
) -> None:
    url = fake_openai_process.base_url
    azure = {"name": "west", "kind": "azure", "base_url": url.removesuffix("/v1")}
    server = {"name": "next-room", "kind": "compatible", "base_url": url}
    wrong = {**azure, "name": "east", "api_key_env": "WRONG_KEY"}
    providers = [{"name": "openai", "kind": "openai"}, azure, server, wrong]
    folder.settings(embedding=OPENAI, providers=providers)
    keys = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": KEY, "WRONG_KEY": "sk-wrong"}
    result = folder.run("doctor", "--json", **keys)
    assert result.returncode == 0, result.stdout
    found = [one for one in json.loads(result.stdout) if one["subject"] == "provider"]
    assert [one["status"] for one in found] == ["ok", "ok", "ok", "warn"]
    assert "next-room: " in found[2]["message"]
    assert found[2]["message"].endswith("not compared with the model yet")
    assert "east: " in found[3]["message"]
    assert "refuses the key (401)" in found[3]["message"]
    assert fake_openai_process.books.tokens == 0
