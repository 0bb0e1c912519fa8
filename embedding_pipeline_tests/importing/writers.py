"""The stores of other tools, written as those tools write them.

The keys and bytes here were compared with what LangChain 1.4, LlamaIndex 0.14 and RedisVL
0.28 wrote for the same texts.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Vectors = Mapping[str, Sequence[float]]


def langchain_key(text: str, encoder: str) -> str:
    raw = text.encode("utf-8")
    if encoder == "sha1":
        return str(uuid.uuid5(uuid.UUID(int=1985), hashlib.sha1(raw).hexdigest()))  # noqa: S324
    return hashlib.new(encoder, raw).hexdigest()


def langchain_files(folder: Path, vectors: Vectors, namespace: str, encoder: str) -> Path:
    for text, vector in vectors.items():
        file = folder / (namespace + langchain_key(text, encoder))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(json.dumps(list(vector)).encode())
    return folder


def key_value_store(path: Path, vectors: Vectors) -> Path:
    entries = {text: {str(uuid.uuid4()): list(vector)} for text, vector in vectors.items()}
    path.write_text(json.dumps({"embeddings": entries}))
    return path


def node(text: str, vector: Sequence[float] | None, **more: Any) -> dict[str, Any]:
    data = {
        "id_": str(uuid.uuid4()),
        "embedding": None if vector is None else list(vector),
        "metadata": {},
        "excluded_embed_metadata_keys": [],
        "metadata_template": "{key}: {value}",
        "metadata_separator": "\n",
        "text": text,
        "text_template": "{metadata_str}\n\n{content}",
        "class_name": "TextNode",
        **more,
    }
    return {"__data__": data, "__type__": "1"}


def ingestion_cache(path: Path, steps: Sequence[Sequence[dict[str, Any]]]) -> Path:
    hashes = {f"{number:064x}": {"nodes": list(nodes)} for number, nodes in enumerate(steps)}
    path.write_text(json.dumps({"llama_cache": hashes}))
    return path


def redisvl_hash(text: str, model: str, vector: Sequence[float]) -> dict[str, str]:
    return {"content": text, "model_name": model, "embedding": json.dumps(list(vector))}
