"""What a source looked like: a stamp that is cheap to take, a digest that is sure.

Belongs here: both, and how they are kept in ``raw_chunks``. Does not belong here: what is
done about a difference (``pipeline.source_changes``).

The stamp is over name, size, time of change and ETag of every file; it may differ where
nothing did (a file was touched). The digest is over what the source delivers for a day,
wherever it stands.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from embedding_pipeline.records import Rejected, Row
from embedding_pipeline.sources.base import Item

_STAMP: Final = "embedding_pipeline.source_stamp"
_DIGEST: Final = "embedding_pipeline.source_digest"
_KEYS: Final = ("size", "mtime", "LastModified", "last_modified", "updated", "ETag", "etag", "md5")
_LENGTH: Final = 16


@dataclass(frozen=True)
class Mark:
    """What a day's source looked like when it was read; "" where it cannot tell."""

    stamp: str = ""
    digest: str = ""

    def to_metadata(self) -> dict[str, str]:
        """As key/value pairs of a Parquet footer."""
        return {_STAMP: self.stamp, _DIGEST: self.digest}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """The inverse; empty for a file of an earlier version."""
        return cls(metadata.get(_STAMP, ""), metadata.get(_DIGEST, ""))


def stamp_of(listing: Mapping[str, Mapping[str, Any]]) -> str:
    """A stamp of files by what their file system says of them."""
    lines = (
        "\0".join([path, *(f"{key}={info[key]}" for key in _KEYS if info.get(key) is not None)])
        for path, info in sorted(listing.items())
    )
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]


class Digest:
    """Adds up items as they pass."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=_LENGTH // 2)

    def passing(self, items: Iterable[Item]) -> Iterator[Item]:
        """The same items, added up on the way."""
        for item in items:
            self._hash.update(_words(item).encode("utf-8", "surrogatepass"))
            yield item

    @property
    def value(self) -> str:
        """The digest of what has passed so far."""
        return self._hash.hexdigest()


def digest_of(items: Iterable[Item]) -> str:
    """The digest of everything a source delivers for a day."""
    digest = Digest()
    for _ in digest.passing(items):
        pass
    return digest.value


def _words(item: Item) -> str:
    """All that an item says, but not where it stood."""
    if isinstance(item, Rejected):
        parts: tuple[object, ...] = ("rejected", item.row_id, item.reason, item.content)
    elif isinstance(item, Row):
        parts = ("row", item.row_id, item.document_id, item.ordinal, item.text)
        parts += (item.project, item.user, sorted(item.metadata.items()))
    else:
        parts = ("document", item.document_id, item.text, item.project, item.user, item.markup)
        parts += (sorted(item.metadata.items()),)
    return f"{parts!r}\n"
