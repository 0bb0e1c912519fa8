"""LangChain's ``CacheBackedEmbeddings``: in a ``LocalFileStore`` or a ``RedisStore``.

Belongs here: keys and values as LangChain writes them (seen in langchain-classic 1.0 and
langchain-community 0.4). Does not belong here: where texts come from.

A value is a JSON array. A key is the namespace and a hash of the text, nothing between
them; so the texts are needed to find anything, and what has no text stays unread.
"""

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from embedding_pipeline.errors import SourceError
from embedding_pipeline.importing.connecting import redis_reading
from embedding_pipeline.importing.found import UNREADABLE, Found, Reader, entry, vector_in_json

_NAMESPACE: Final = uuid.UUID(int=1985)
_AT_ONCE: Final = 200
_MOST_BYTES: Final = 2 << 20

Texts = Callable[[], Iterable[str]]
"""The texts to look up, from the beginning."""


def _uuid_of_sha1(content: bytes) -> str:
    digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    return str(uuid.uuid5(_NAMESPACE, digest))


ENCODERS: Final[dict[str, Callable[[bytes], str]]] = {
    "sha1": _uuid_of_sha1,
    "sha256": lambda content: hashlib.sha256(content).hexdigest(),
    "sha512": lambda content: hashlib.sha512(content).hexdigest(),
    "blake2b": lambda content: hashlib.blake2b(content).hexdigest(),
}
"""LangChain's key encoders by their names; ``sha1`` is its default."""


def key_of(text: str, namespace: str, encoder: str) -> str:
    """The key under which LangChain has the vector of a text."""
    return namespace + ENCODERS[encoder](text.encode())


def file_store(folder: Path, texts: Texts, namespace: str, encoder: str) -> Reader:
    """A ``LocalFileStore``: one file a key.

    Raises:
        SourceError: there is no such folder.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder; name the root of the LocalFileStore")
    if not _stays_inside(namespace):
        raise SourceError(f"the namespace {namespace!r} leads out of {folder}")

    def read() -> Iterator[Found]:
        for position, text in enumerate(texts()):
            found = _file(folder / key_of(text, namespace, encoder), position, text)
            if found is not None:
                yield found

    return read


def redis_store(url: str, texts: Texts, prefix: str, namespace: str, encoder: str) -> Reader:
    """A ``RedisStore``: one string a key, behind ``<prefix>/`` where the store has a namespace.

    Args:
        url: where the Redis is.
        texts: what to look up.
        prefix: the ``namespace`` of the store, or "".
        namespace: the one of the cache.
        encoder: one of ``ENCODERS``.
    """
    before = f"{prefix}/" if prefix else ""

    def read() -> Iterator[Found]:
        with redis_reading(url) as client:
            numbered = enumerate(texts())
            while batch := list(islice(numbered, _AT_ONCE)):
                keys = [before + key_of(text, namespace, encoder) for _, text in batch]
                yield from _answers(batch, client.mget(keys))

    return read


def _answers(batch: Sequence[tuple[int, str]], values: Sequence[bytes | None]) -> Iterator[Found]:
    for (position, text), value in zip(batch, values, strict=True):
        if value is not None:
            yield entry(position, text, vector_in_json(value))


def _file(path: Path, position: int, text: str) -> Found | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return Found(position, text, None, problem=UNREADABLE)
        return entry(position, text, vector_in_json(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return Found(position, text, None, problem=UNREADABLE)


def _stays_inside(namespace: str) -> bool:
    return not namespace.startswith("/") and ".." not in Path(namespace).parts
