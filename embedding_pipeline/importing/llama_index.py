"""LlamaIndex's caches: a persisted ``IngestionCache``, or a key-value store of embeddings.

Belongs here: their JSON, as seen in llama-index-core 0.14, read as a stream: the files have
34 kB for a vector of 6 kB, all in one object. Does not belong here: any Python object of
theirs; nothing is unpickled.

``{"<collection>": {"<hash>": {"nodes": [...]}}}`` is an ingestion cache: a node's vector was
made from its text with the metadata that it does not exclude. ``{"<collection>": {"<text>":
{"<id>": [...]}}}`` is the store of an embedding model's ``embeddings_cache``.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from embedding_pipeline.errors import SourceError
from embedding_pipeline.importing.connecting import redis_reading
from embedding_pipeline.importing.found import Found, Reader, Vector, numbered, vector_of

_AT_ONCE: Final = 50
_BLOCK_CHARACTERS: Final = 1 << 18
_MOST_CHARACTERS: Final = 1 << 28
"""One value of the store (the nodes of one step); a file that has no end in it is no JSON."""


def cache_file(path: Path) -> Reader:
    """A cache persisted as one JSON file.

    Raises:
        SourceError: there is no such file.
    """
    if not path.is_file():
        raise SourceError(f"{path} is not a file; name the JSON file the cache was persisted to")

    def read() -> Iterator[Found]:
        yield from numbered(
            (text, vector, "") for key, value in _pairs(path) for text, vector in _of(key, value)
        )

    return read


def redis_store(url: str, collection: str) -> Reader:
    """The same in a ``RedisKVStore``: one hash a collection, a field a key, JSON in it."""

    def read() -> Iterator[Found]:
        with redis_reading(url) as client:
            yield from numbered(
                (text, vector, "")
                for key, value in client.hscan_iter(collection, count=_AT_ONCE)
                for text, vector in _of(key.decode(errors="replace"), _parsed(value))
            )

    return read


def _parsed(value: bytes) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None


def _of(key: str, value: Any) -> Iterator[tuple[str | None, Vector | None]]:
    if not isinstance(value, Mapping):
        yield None, None
    elif isinstance(value.get("nodes"), list):
        for node in value["nodes"]:
            data = _data(node)
            if data.get("embedding") is not None:  # other steps keep nodes as well
                yield embedded_text(data), vector_of(data["embedding"])
    else:
        yield key, next((vector_of(numbers) for numbers in value.values()), None)


def _data(node: Any) -> Mapping[str, Any]:
    data = node.get("__data__") if isinstance(node, Mapping) else None
    if isinstance(data, str):  # nodes may be written as JSON within JSON
        try:
            data = json.loads(data)
        except (ValueError, RecursionError):
            data = None
    return data if isinstance(data, Mapping) else {}


def embedded_text(node: Mapping[str, Any]) -> str | None:
    """The text a node's vector was made from: content and metadata in the node's templates."""
    resource = node.get("text_resource")
    content = resource.get("text") if isinstance(resource, Mapping) else node.get("text")
    metadata = node.get("metadata") or {}
    if not isinstance(content, str) or not isinstance(metadata, Mapping):
        return None
    excluded = node.get("excluded_embed_metadata_keys") or ()
    line = str(node.get("metadata_template") or "{key}: {value}")
    lines = [
        line.replace("{key}", str(key)).replace("{value}", str(value))
        for key, value in metadata.items()
        if key not in excluded
    ]
    words = str(node.get("metadata_separator", "\n")).join(lines)
    if not words.strip():
        return content
    template = str(node.get("text_template") or "{metadata_str}\n\n{content}")
    before, mark, after = template.partition("{content}")
    whole = before.replace("{metadata_str}", words) + (content if mark else "")
    return (whole + after.replace("{metadata_str}", words)).strip()


def _pairs(path: Path) -> Iterator[tuple[str, Any]]:
    """The innermost keys and values of ``{collection: {key: value}}``, one at a time."""
    try:
        with path.open(encoding="utf-8") as file:
            stream = _Stream(file)
            for _collection in stream.members():
                for key in stream.members():
                    yield key, stream.value()
    except (OSError, ValueError, RecursionError) as exc:
        raise SourceError(f"{path} is not a cache of LlamaIndex, or cut short: {exc}") from exc


class _Stream:
    """JSON read from the front, a value at a time."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._decoder = json.JSONDecoder()
        self._buffer = ""
        self._at = 0
        self._ended = False

    def members(self) -> Iterator[str]:
        """The keys of the object that begins here; the caller reads each one's value."""
        self._expect("{")
        if self._next() == "}":
            self._at += 1
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise ValueError("an object's key is not a string")
            self._expect(":")
            yield key
            if self._take() == "}":
                return

    def value(self) -> Any:
        """The value that begins here."""
        self._next()
        wanted = 0
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except ValueError:
                if self._ended or len(self._buffer) - self._at > _MOST_CHARACTERS:
                    raise
            else:
                if end < len(self._buffer) or self._ended:
                    self._at = end
                    return value
            wanted = max(wanted * 2, _BLOCK_CHARACTERS)
            self._more(wanted)

    def _take(self) -> str:
        sign = self._next()
        if sign not in {",", "}"}:
            raise ValueError(f"{sign!r} where a comma or a closing brace should be")
        self._at += 1
        return sign

    def _expect(self, sign: str) -> None:
        if self._next() != sign:
            raise ValueError(f"{self._next()!r} where {sign!r} should be")
        self._at += 1

    def _next(self) -> str:
        """The next sign that is not white space."""
        while True:
            while self._at < len(self._buffer):
                if not self._buffer[self._at].isspace():
                    return self._buffer[self._at]
                self._at += 1
            if self._ended:
                raise ValueError("the file ends too early")
            self._more(_BLOCK_CHARACTERS)

    def _more(self, characters: int) -> None:
        block = self._file.read(characters)
        self._ended = not block
        self._buffer, self._at = self._buffer[self._at :] + block, 0
