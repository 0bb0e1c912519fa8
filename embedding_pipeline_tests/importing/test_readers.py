"""Every foreign store is read as it was written; what is broken in it is named, and alone."""

import contextvars
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from redis import Redis

from embedding_pipeline.errors import SourceError
from embedding_pipeline.importing import langchain, llama_index, redisvl, tables
from embedding_pipeline.importing.found import Found, Reader, vector_of
from embedding_pipeline_tests.importing import writers

TEXTS = ["hello", "wörld 文字", "two\nlines"]
VECTORS = {text: [0.5, -0.5, 0.5, n / 7] for n, text in enumerate(TEXTS)}


def texts() -> Iterator[str]:
    return iter([*TEXTS, "nobody has this one"])


def read(reader: Reader) -> list[Found]:
    """Read twice; each entry in a context of its own, as threads of an event loop do."""
    end, entries = object(), reader()
    contexts = iter(contextvars.copy_context, None)
    steps = iter(lambda: next(contexts).run(next, entries, end), end)
    found = [step for step in steps if isinstance(step, Found)]
    assert len(list(reader())) == len(found), "it can be read again"
    return found


def same(found: Sequence[Found], expected: dict[str, list[float]]) -> bool:
    told = {entry.text: entry.vector for entry in found}
    assert all(not entry.problem for entry in found)
    assert list(told) == list(expected)
    return all(
        vector is not None
        and vector.dtype == np.float32
        and (vector == np.array(expected[str(text)], np.float32)).all()
        for text, vector in told.items()
    )


@pytest.mark.parametrize("encoder", sorted(langchain.ENCODERS))
@pytest.mark.parametrize("namespace", ["", "text-embedding-3-small", "a/b/"])
def test_langchain_files(tmp_path: Path, encoder: str, namespace: str) -> None:
    writers.langchain_files(tmp_path, VECTORS, namespace, encoder)
    assert same(read(langchain.file_store(tmp_path, texts, namespace, encoder)), VECTORS)


def test_a_key_as_langchain_makes_it() -> None:
    key = langchain.key_of("hello", "m", "sha1")
    assert key == "me885db5b-c0bd-5fbc-88b1-4d1da6020aa5"  # what LangChain itself wrote


def test_a_langchain_file_that_is_no_vector_is_named_by_its_position(tmp_path: Path) -> None:
    writers.langchain_files(tmp_path, VECTORS, "", "sha256")
    (tmp_path / writers.langchain_key(TEXTS[1], "sha256")).write_bytes(b"\x80\x04]\x94.")
    problems = {
        entry.position: entry.problem
        for entry in read(langchain.file_store(tmp_path, texts, "", "sha256"))
    }
    assert problems == {0: "", 1: "no_vector", 2: ""}


def test_a_namespace_does_not_lead_out_of_the_store(tmp_path: Path) -> None:
    for namespace in ("../", "/etc/"):
        with pytest.raises(SourceError, match="leads out"):
            langchain.file_store(tmp_path, texts, namespace, "sha256")


@pytest.mark.parametrize("prefix", ["", "ns"])
def test_langchain_in_redis(redis_url: str, prefix: str) -> None:
    with Redis.from_url(redis_url) as client:
        for text, vector in VECTORS.items():
            key = "model" + writers.langchain_key(text, "blake2b")
            client.set(f"{prefix}/{key}" if prefix else key, json.dumps(vector))
    reader = langchain.redis_store(redis_url, texts, prefix, "model", "blake2b")
    assert same(read(reader), VECTORS)


def test_redisvl(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        for number, (text, vector) in enumerate(VECTORS.items()):
            fields = writers.redisvl_hash(text, "openai/m", vector)
            client.hset(f"cache:{number}", mapping=fields)
        client.hset("cache:x", mapping={"content": b"\xff", "embedding": "[1.0]"})
        client.set("cache:y", "no hash")
        client.hset("cached:z", mapping=writers.redisvl_hash("other cache", "m", [1.0]))
    found = read(redisvl.embeddings_cache(redis_url, "cache"))
    good = [entry for entry in found if not entry.problem]
    assert {entry.text for entry in good} == set(TEXTS)
    assert {entry.model for entry in good} == {"openai/m"}
    assert [entry.problem for entry in found if entry.problem] == ["no_text"]


def test_a_redis_that_is_not_there_is_an_error_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        list(redisvl.embeddings_cache(f"unix://{tmp_path}/none.sock", "cache")())


def test_llama_index_key_values(tmp_path: Path) -> None:
    path = writers.key_value_store(tmp_path / "kv.json", VECTORS)
    assert same(read(llama_index.cache_file(path)), VECTORS)


def test_llama_index_nodes_have_the_text_that_was_embedded(tmp_path: Path) -> None:
    metadata = {"title": "On {content}", "page": 3}
    step = [
        writers.node("plain", [1.0, 0.0]),
        writers.node("body", [0.0, 1.0], metadata=metadata, excluded_embed_metadata_keys=["page"]),
        writers.node("old", [1.0, 1.0], text_resource={"text": "new"}),
    ]
    unembedded = [writers.node("only split", None)]
    path = writers.ingestion_cache(tmp_path / "cache.json", [unembedded, step])
    found = read(llama_index.cache_file(path))
    assert [entry.text for entry in found] == ["plain", "title: On {content}\n\nbody", "new"]


def test_llama_index_is_read_in_pieces_whatever_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = writers.key_value_store(tmp_path / "kv.json", VECTORS)
    path.write_text(path.read_text().replace(",", " ,\n ").replace(":", " :\t"))
    monkeypatch.setattr(llama_index, "_BLOCK_CHARACTERS", 3)
    assert same(read(llama_index.cache_file(path)), VECTORS)


def test_llama_index_in_redis(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        for text, vector in VECTORS.items():
            client.hset("embeddings", text, json.dumps({"an id": vector}))
        nodes = [writers.node("in a node", [1.0, 0.0])]
        client.hset("llama_cache", "hash", json.dumps({"nodes": nodes}))
        client.hset("llama_cache", "torn", "{")
    found = read(llama_index.redis_store(redis_url, "embeddings"))
    assert {entry.text for entry in found if not entry.problem} == set(TEXTS)
    found = read(llama_index.redis_store(redis_url, "llama_cache"))
    assert sorted((entry.text or "", entry.problem) for entry in found) == [
        ("", "no_text"),
        ("in a node", ""),
    ]


@pytest.mark.parametrize("cut", [1, 30, 60, -3])
def test_llama_index_cut_short_is_an_error_after_what_was_whole(tmp_path: Path, cut: int) -> None:
    path = writers.key_value_store(tmp_path / "kv.json", VECTORS)
    path.write_text(path.read_text()[:cut])
    with pytest.raises(SourceError, match=r"kv\.json"):
        list(llama_index.cache_file(path)())


def test_empty_caches_have_nothing(tmp_path: Path) -> None:
    for content in ("{}", '{"embeddings": {}}'):
        (tmp_path / "kv.json").write_text(content)
        assert read(llama_index.cache_file(tmp_path / "kv.json")) == []


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 4), pa.large_list(pa.float32())]
)
def test_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table(
        {"text": list(VECTORS), "vector": pa.array(list(VECTORS.values()), kind), "more": [1, 2, 3]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    assert same(read(tables.table(tmp_path / "t.parquet", "text", "vector")), VECTORS)


def test_parquet_rows_without_text_or_vector(tmp_path: Path) -> None:
    vectors = pa.array([[1.0], None, [None], []], pa.list_(pa.float32()))
    table = pa.table({"words": [None, "b", "c", "d"], "numbers": vectors})
    pq.write_table(table, tmp_path / "t.parquet")
    found = read(tables.table(tmp_path / "t.parquet", "words", "numbers"))
    assert [entry.problem for entry in found] == ["no_text", "no_vector", "no_vector", "no_vector"]
    with pytest.raises(SourceError, match="it has: words, numbers"):
        list(tables.table(tmp_path / "t.parquet", "text", "numbers")())
    with pytest.raises(SourceError, match="not lists of floats"):
        list(tables.table(tmp_path / "t.parquet", "words", "words")())


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    rows = [json.dumps({"text": text, "vector": vector}) for text, vector in VECTORS.items()]
    content = "\n".join([*rows, "", "{torn", "[1]", '{"text": "x", "vector": "abc"}']).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = read(tables.table(path, "text", "vector"))
    assert same(found[:3], VECTORS)
    assert [(entry.position, entry.problem) for entry in found[3:]] == [
        (3, "unreadable"),
        (4, "unreadable"),
        (5, "no_vector"),
    ]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(SourceError, match="convert it"):
        tables.table(tmp_path / "cache.pkl", "text", "vector")
    for place in (tables.table, lambda path, *_: llama_index.cache_file(path)):
        with pytest.raises(SourceError, match="not a file"):
            place(tmp_path / "none", "text", "vector")


def test_what_is_no_list_of_numbers_is_no_vector() -> None:
    for value in (
        None,
        [],
        "abc",
        {"a": 1},
        ["a"],
        [[1.0], [2.0]],
        [1.0, [2.0]],
        [10**400],
    ):
        assert vector_of(value) is None
    large = vector_of([1e300, 1.0])
    assert large is not None
    assert np.isinf(large[0])
