"""RedisVL's ``EmbeddingsCache``: hashes with the text, the model and the vector.

Belongs here: the fields as RedisVL writes them (seen in 0.28: ``content``; before 0.9 it
was ``text``). Vectors are JSON arrays.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from embedding_pipeline.importing.connecting import redis_reading
from embedding_pipeline.importing.found import Found, Reader, numbered, vector_in_json

_FIELDS: Final = ("content", "text", "model_name", "embedding")
_AT_ONCE: Final = 100


def embeddings_cache(url: str, name: str) -> Reader:
    """A cache called ``name`` (RedisVL's default is ``embedcache``), in the server's order."""

    def read() -> Iterator[Found]:
        with redis_reading(url) as client:
            yield from numbered(_entries(client, name))

    return read


def _entries(client: Any, name: str) -> Iterator[tuple[str | None, Any, str]]:
    keys = client.scan_iter(match=f"{_escaped(name)}:*", count=1000, _type="hash")
    while batch := list(islice(keys, _AT_ONCE)):
        with client.pipeline(transaction=False) as pipeline:
            for key in batch:
                pipeline.hmget(key, _FIELDS)
            rows = pipeline.execute()
        for content, text, model, vector in rows:
            words = _text(content if content is not None else text)
            yield words, None if vector is None else vector_in_json(vector), _text(model) or ""


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _escaped(name: str) -> str:
    return "".join(f"\\{sign}" if sign in "*?[]\\" else sign for sign in name)
