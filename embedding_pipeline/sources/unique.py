"""Ids that occur once: the one rule that holds for every source.

Belongs here: finding an id that was there before, in little memory. Does not belong
here: anything a single source does on its own.
"""

from array import array
from collections.abc import Iterator
from datetime import date
from hashlib import blake2b
from typing import Final

from embedding_pipeline.records import Document, Rejected, Row
from embedding_pipeline.sources.base import ChunkSource, Item
from embedding_pipeline.sources.rows import excerpt

_FIRST_SLOTS: Final = 1024


class UniqueIds(ChunkSource):
    """A source whose rows and documents have ids that are unique within the day.

    The first one stays; every later one is rejected as ``duplicate_id``.
    """

    def __init__(self, source: ChunkSource) -> None:
        self._source = source

    def stamp(self, day: date) -> str:
        return self._source.stamp(day)

    def read(self, day: date) -> Iterator[Item]:
        seen = SeenIds()
        for item in self._source.read(day):
            yield item if isinstance(item, Rejected) else _once(item, seen)


class SeenIds:
    """A set of ids that grows by 16 to 32 bytes for each, where Python's takes over 100.

    An open-addressing table of 64-bit hashes. Two different ids share a hash with
    probability n² / 2⁶⁵: 3·10⁻⁸ for a million ids.
    """

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _FIRST_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, name: str) -> bool:
        """Remember ``name``; False if it was there already."""
        # 0 marks an empty slot, so no hash may be 0.
        key = int.from_bytes(blake2b(name.encode(), digest_size=8).digest()) or 1
        slot = _slot(self._slots, key)
        if self._slots[slot] == key:
            return False
        self._slots[slot] = key
        self._count += 1
        if 2 * self._count > len(self._slots):
            self._grow()
        return True

    def _grow(self) -> None:
        old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
        for key in filter(None, old):
            self._slots[_slot(self._slots, key)] = key


def _slot(slots: "array[int]", key: int) -> int:
    """Where ``key`` stands, or the empty slot where it belongs. The size is a power of two."""
    mask = len(slots) - 1
    slot = key & mask
    while slots[slot] not in {0, key}:
        slot = (slot + 1) & mask
    return slot


def _once(item: Row | Document, seen: SeenIds) -> Item:
    name = item.row_id if isinstance(item, Row) else item.document_id
    if seen.add(name):
        return item
    return Rejected(item.location, name, "duplicate_id", excerpt(item.text))
