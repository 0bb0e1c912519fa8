"""Every mistake in the settings is answered with where, what is wrong, and what to do."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.errors import SettingsError
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.settings.wording import children_of

PYDANTIC = re.compile(r"(?i)input should|extra inputs|field required|validation error|pydantic")
"""Words meant for programmers; no message holds them."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, content: Mapping[str, Any] | str) -> None:
    text = content if isinstance(content, str) else yaml.safe_dump(dict(content))
    (folder / "pipeline.yaml").write_text(text)


def refused(error: type[Exception] = SettingsError) -> str:
    """What loading says."""
    with pytest.raises(error) as caught:
        load_settings()
    message = str(caught.value)
    assert not PYDANTIC.search(message), message
    return message


MISTAKES: list[tuple[str, str]] = [
    ("cachee: {}", "pipeline.yaml: cachee: no such setting (did you mean cache?)"),
    ("cache: {memory: 1}", "cache.memory: no such setting (did you mean memory_mb?)"),
    ("source: {fields: {txt: a}}", "source.fields.txt: no such setting (did you mean text?)"),
    (
        "providers: [{name: a, kind: openai, api_key: sk-secret}]",
        "providers.0.api_key: no such setting (did you mean api_key_env?)",
    ),
    ("cache: {memory_mb: lots}", "cache.memory_mb: must be a whole number, not 'lots'"),
    ("cache: {memory_mb: 1.5}", "cache.memory_mb: must be a whole number, not 1.5"),
    ("cache: {memory_mb: -1}", "cache.memory_mb: must be at least 0, not -1"),
    ("cache: {dtype: float64}", "cache.dtype: must be one of float32 or float16, not 'float64'"),
    ("cache: 5", "cache: must be a section of keys and values, not 5"),
    ("retry: {max_seconds: 0}", "retry.max_seconds: must be more than 0, not 0"),
    ("retry: {max_seconds: soon}", "retry.max_seconds: must be a number, not 'soon'"),
    ("limits: {max_in_flight: 5000}", "limits.max_in_flight: must be at most 1000, not 5000"),
    ("dedup: {near: maybe}", "dedup.near: must be true or false, not 'maybe'"),
    ("data_dir: 5", "data_dir: must be text; put it in quotes, not 5"),
    ("data_dir: ''", "data_dir: must not be empty"),
    (
        "partitions: {start_date: soon}",
        "partitions.start_date: must be a date like 2026-01-31, not 'soon'",
    ),
    ("partitions: {timezone: Mars}", "partitions.timezone: not a time zone; write it like"),
    ("tenants: {project: a}", "tenants: must be a list"),
    ("tenants: [{weight: 2}]", "tenants.0.project: is missing; add it"),
    ("providers: [{name: 'A B', kind: openai}]", "providers.0.name: must match the pattern"),
    ("providers: []", "providers: the list is empty"),
    (
        "providers: [{name: a, kind: compatible}]",
        "providers.0.base_url: needed for kind compatible; say where it is",
    ),
    ("source: {kind: ftp}", "source.kind: must be one of demo, files or sql, not 'ftp'"),
    ("source: {kind: files}", "source: kind 'files' needs a path: an fsspec glob"),
    ("source: {path: x}", "source: path is not read by kind 'demo'"),
    ("source: {kind: files, path: x}", "partitions.start_date: needed for this source"),
    (
        "chunking: {max_tokens: 64, overlap_tokens: 64}",
        "chunking: overlap_tokens (64) must be smaller than max_tokens (64)",
    ),
    ("chunking: {max_tokens: 9000}", "chunking.max_tokens: 9000 is more than the 8192"),
    ("embedding: {model: gpt-4}", "embedding.model: unknown model 'gpt-4'; known models:"),
    (
        "embedding: {model: openai/text-embeding-3-small}",
        "did you mean openai/text-embedding-3-small?",
    ),
    ("embedding: {dimensions: 64}", "embedding.dimensions: vectors of local/"),
    (
        "embedding: {model: openai/text-embedding-3-small, dimensions: 2000}",
        "embedding.dimensions: 2000 is more than the 1536",
    ),
    ("embedding: {dimensions: 0}", "embedding.dimensions: must be at least 1, not 0"),
]


@pytest.mark.parametrize(("content", "says"), MISTAKES, ids=[content for content, _ in MISTAKES])
def test_a_mistake_is_named_with_file_key_and_remedy(folder: Path, content: str, says: str) -> None:
    write(folder, content + "\n")
    message = refused()
    assert message.startswith("pipeline.yaml: ")
    assert says in message
    assert "sk-secret" not in message


def test_every_mistake_is_named_at_once(folder: Path) -> None:
    write(folder, {"cache": {"memory_mb": "x", "dtype": "y"}, "retries": 5})
    assert len(refused().splitlines()) == 3


def test_every_contradiction_is_named_at_once(folder: Path) -> None:
    write(
        folder,
        {
            "embedding": {"dimensions": 9999},
            "source": {"kind": "files", "path": "x"},
            "chunking": {"max_tokens": 9999},
        },
    )
    lines = refused().splitlines()
    assert {line.split(": ")[1] for line in lines} == {
        "embedding.dimensions",
        "partitions.start_date",
        "chunking.max_tokens",
    }


def test_a_mistake_of_the_environment_names_the_variable(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, {"cache": {"memory_mb": 5}})
    monkeypatch.setenv("EMBEDDING_PIPELINE_CACHE__MEMORY_MB", "lots")
    assert refused() == (
        "environment variable EMBEDDING_PIPELINE_CACHE__MEMORY_MB: cache.memory_mb: "
        "must be a whole number, not 'lots'"
    )


def test_a_mistake_of_the_caller_is_not_blamed_on_the_file(folder: Path) -> None:
    write(folder, {"retry": {"max_seconds": 10}})
    with pytest.raises(SettingsError, match=r"^the call: embedding.model: unknown model 'x'"):
        load_settings({"embedding": {"model": "x"}})
    with pytest.raises(SettingsError, match=r"^the call: retry.max_attempts: must be at least 1"):
        load_settings({"retry": {"max_attempts": 0}})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("CACHEE__DTYPE", "no such setting (did you mean cache?)"),
        ("CACHE__MEMORY", "no such setting (did you mean memory_mb?)"),
        ("SOURCE__FIELDS__TXT", "no such setting (did you mean text?)"),
        ("PROVIDERS__0__NAME", "give the whole value at once, lists and sections as JSON"),
        ("DATA_DIR__X", "give the whole value at once"),
        ("", "no such setting"),
    ],
)
def test_an_unknown_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    monkeypatch.setenv(f"EMBEDDING_PIPELINE_{name}", "1")
    message = refused()
    assert message.startswith(f"environment variable EMBEDDING_PIPELINE_{name}: ")
    assert says in message


def test_a_list_that_is_no_json_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_PIPELINE_TENANTS", "search")
    message = refused()
    assert message.startswith("environment variable EMBEDDING_PIPELINE_TENANTS: not valid JSON")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("cache:\n  memory_mb: [1\nretry: {}\n", "pipeline.yaml, line 3: "),
        ("a: b: c\n", "pipeline.yaml, line 1: "),
        ("cache:\n\tmemory_mb: 1\n", "pipeline.yaml, line 2: "),
        ("cache: {}\nretry: {}\ncache: {}\n", "pipeline.yaml, line 3: cache stands there twice"),
        ("retry:\n  max_attempts: 1\n  max_attempts: 2\n", "line 3: max_attempts stands there"),
        ("- a\n- b\n", "pipeline.yaml: must be keys and values"),
        ("just text\n", "pipeline.yaml: must be keys and values"),
        ("partitions: {start_date: 2026-02-30}\n", "pipeline.yaml: cannot be read: day"),
        ("data_dir: !!python/object:os.system x\n", "pipeline.yaml, line 1: "),
    ],
)
def test_what_is_no_settings_file_says_where(folder: Path, content: str, says: str) -> None:
    write(folder, content)
    assert refused().startswith(says) or says in refused()


def test_a_file_that_is_not_utf8_is_refused(folder: Path) -> None:
    (folder / "pipeline.yaml").write_bytes(b"data_dir: caf\xe9\n")
    assert refused().startswith("pipeline.yaml: cannot be read: ")


def test_a_file_that_is_named_and_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_PIPELINE_CONFIG", "nowhere.yaml")
    assert refused() == "EMBEDDING_PIPELINE_CONFIG: there is no file nowhere.yaml; correct the path"


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5) | st.dates(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    """Known keys with anything for a value."""
    section = draw(st.sampled_from(sorted(Settings.model_fields)))
    fields = children_of(Settings.model_fields[section].annotation)
    if not fields or draw(st.booleans()):
        return {section: draw(yaml_values)}
    return {section: {draw(st.sampled_from(sorted(fields))): draw(yaml_values)}}


@settings(max_examples=150)
@given(trees())
def test_whatever_stands_there_it_is_taken_or_refused_in_our_words(tree: dict[str, Any]) -> None:
    message = ""
    try:
        load_settings(tree)
    except SettingsError as exc:
        message = str(exc)
    assert not PYDANTIC.search(message), message
    assert all(line.startswith("the call: ") for line in message.splitlines())


# --- money ---------------------------------------------------------------------------------------

BUDGET = {"scope": "all", "period": "day", "limit_usd": 1}
SMALL = "openai/text-embedding-3-small"


def test_a_budget_needs_a_price(folder: Path) -> None:
    price: dict[str, Any] = {
        "model": SMALL,
        "usd_per_million_tokens": None,
        "checked": "2026-01-01",
    }
    tree = {"embedding": {"model": SMALL}, "budgets": [BUDGET], "prices": [price]}
    write(folder, tree)
    message = refused()
    assert f"budgets: the price of {SMALL} is not known" in message
    assert f"give it in prices: [{{model: {SMALL}, usd_per_million_tokens: …" in message
    price["usd_per_million_tokens"] = 0.05
    write(folder, tree)
    assert load_settings().model_spec.nano_usd_per_token == 50


def test_a_price_may_be_unknown_where_nothing_is_bounded(folder: Path) -> None:
    price: dict[str, Any] = {
        "model": SMALL,
        "usd_per_million_tokens": None,
        "checked": "2026-01-01",
    }
    write(folder, {"embedding": {"model": SMALL}, "prices": [price]})
    spec = load_settings().model_spec
    assert (spec.nano_usd_per_token, spec.batch_nano_usd_per_token) == (None, None)
    assert str(spec.price_checked) == "2026-01-01"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"budgets": [BUDGET, BUDGET]}, "budgets.1: all has two limits for day; keep one"),
        ({"budgets": [{**BUDGET, "alert_at": [80]}]}, "more than 0 and at most 1"),
        (
            {"prices": [{"model": "x", "usd_per_million_tokens": 1, "checked": "2026-01-01"}]},
            "prices.0.model: unknown model 'x'",
        ),
        (
            {"prices": [{"model": SMALL, "usd_per_million_tokens": 1e-4, "checked": "2026-01-01"}]},
            "steps of 0.001 USD",
        ),
    ],
)
def test_odd_money(folder: Path, tree: dict[str, Any], message: str) -> None:
    write(folder, tree)
    assert message in refused()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"state_url": None}, "state_url: needed when data_dir is in an object store"),
        ({"partitions": {}}, "partitions.start_date: needed when data_dir is in an object"),
        ({"data_dir": "s3://key:secret@bucket/data"}, "credentials and options come from the env"),
    ],
)
def test_datasets_in_an_object_store_need_the_rest_elsewhere(
    folder: Path, tree: dict[str, Any], message: str
) -> None:
    whole = {
        "data_dir": "s3://bucket/data",
        "state_url": "sqlite:///state.db",
        "partitions": {"start_date": "2026-01-01"},
    }
    write(folder, whole)
    assert load_settings().data_url == "s3://bucket/data"
    assert load_settings().data_path == folder / ".embedding_pipeline"
    write(folder, {key: value for key, value in {**whole, **tree}.items() if value})
    assert message in refused()


# --- not yet -------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [None, "https://r.openai.azure.com/openai/v1"])
def test_azure_is_given_by_its_resource(folder: Path, url: str | None) -> None:
    azure = {"name": "azure", "kind": "azure", "base_url": url}
    write(folder, {"providers": [azure]})
    assert "providers.0.base_url: " in refused()
    write(folder, {"providers": [{**azure, "base_url": "https://r.openai.azure.com/"}]})
    assert load_settings().provider.kind == "azure"


def test_the_batch_api_needs_a_model_and_a_provider_that_have_one(folder: Path) -> None:
    write(folder, "batch_api: on\n")
    assert "batch_api: local/use-multilingual-v3 has no Batch API" in refused()
    azure = {"name": "a", "kind": "azure", "base_url": "https://r.openai.azure.com"}
    model = {"model": "openai/text-embedding-3-small"}
    write(folder, {"batch_api": "auto", "embedding": model, "providers": [azure]})
    assert "batch_api: needs a provider of kind openai" in refused()
    write(folder, {"batch_api": "sometimes"})
    assert "batch_api.mode: must be one of off, on or auto, not 'sometimes'" in refused()


def test_it_says_where_the_key_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDDING_PIPELINE_PROVIDERS", "[]")
    assert refused().startswith("environment variable EMBEDDING_PIPELINE_PROVIDERS: ")


@pytest.mark.parametrize("key", ["state_url", "redis_url"])
def test_no_password_is_shown_by_a_message(folder: Path, key: str) -> None:
    write(folder, {key: ["redis://:geheim@host"]})
    assert "geheim" not in refused()
