"""Who represents whom.

Belongs here: the decision over the signatures of some days, as a pure function, and its
result. Does not belong here: reading chunks or writing them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.dedup.clusters import Rows, clusters, members
from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.dedup.leading import lead
from embedding_pipeline.dedup.shingles import Shingles
from embedding_pipeline.dedup.signing import joined, shingled
from embedding_pipeline.dedup.words import Hashes

Mask: TypeAlias = npt.NDArray[np.bool_]
"""One yes or no a row."""

Digests: TypeAlias = npt.NDArray[np.uint64]
"""Digests as two 64-bit words each, shape ``(n, 2)``."""

TextsOf: TypeAlias = Callable[[Rows], Iterable[list[str]]]
"""Gives the texts of some rows of a window, ascending, in pieces of bounded size."""

PROVED_AT_ONCE: Final = 1 << 16
"""Rows whose shingles are held to prove their copies; a larger cluster is one piece."""


class Method(IntEnum):
    """How a chunk is a copy of its representative."""

    EXACT = 0
    NORMALIZED = 1
    NEAR = 2

    @property
    def word(self) -> str:
        """As it stands in ``duplicate_chunks``."""
        return self.name.lower()


@dataclass(frozen=True)
class Window:
    """The signatures of the day in question and of the days before it that are looked at.

    Rows are numbered from the first row of the first day on.

    Attributes:
        days: the days, ascending; the last one is the day in question.
        tables: the signatures of each, in one family.
    """

    days: Sequence[str]
    tables: Sequence[pa.Table]

    @property
    def starts(self) -> Rows:
        """The number of each day's first row, and one past the last row."""
        return np.cumsum([0, *(table.num_rows for table in self.tables)], dtype=np.int64)

    def of_day(self, rows: Rows) -> Iterator[tuple[int, Rows]]:
        """``rows``, ascending, by the number of their day, counted within it."""
        starts = self.starts
        for number in range(len(self.days)):
            low, high = np.searchsorted(rows, starts[number : number + 2])
            if low < high:
                yield number, rows[low:high] - starts[number]

    def identities(self, rows: Rows) -> tuple[pa.Array, pa.Array]:
        """Ids and days of ``rows``, in their order."""
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        days = pa.array(self.days, pa.string()).take(pa.array(numbers))
        return self._ids.take(pa.array(rows)).combine_chunks(), days

    @cached_property
    def _ids(self) -> pa.ChunkedArray:
        """The ids of all rows, a chunk a day: taking from many chunks is slow."""
        return pa.chunked_array([table["chunk_id"].combine_chunks() for table in self.tables])

    def ranking(self) -> Rows:
        """All rows by date, then by the UTF-8 bytes of their id: earlier ones represent."""
        orders = [
            start + pc.array_sort_indices(ids).to_numpy()
            for start, ids in zip(self.starts, self._ids.chunks, strict=False)
        ]
        return np.concatenate(orders).astype(np.int64)

    def digests(self, column: str) -> Digests:
        """The digests in ``column``, of all rows."""
        parts = [_words(part) for table in self.tables for part in table[column].chunks]
        return np.concatenate([np.empty((0, 2), np.uint64), *parts])

    def keys(self, rows: Rows) -> Hashes:
        """The band keys of ``rows``, shape ``(n, bands)``."""
        names = [name for name in self.tables[-1].column_names if name.startswith("band_")]
        keys = np.empty((len(rows), len(names)), np.uint64)
        for place, name in enumerate(names):
            column = [table[name].to_numpy() for table in self.tables]
            keys[:, place] = np.concatenate(column)[rows]
        return keys


@dataclass(frozen=True)
class Groups:
    """The verdict over the n chunks of the last day of a window.

    Attributes:
        first: number of the day's first row in the window.
        representative: for each chunk the row of its representative in the window; its
            own row when it is one itself.
        method: for each chunk a ``Method``; ``EXACT`` where it represents itself.
        similarity: float32, Jaccard similarity to the representative.
    """

    first: int
    representative: Rows
    method: npt.NDArray[np.int8]
    similarity: npt.NDArray[np.float32]

    @property
    def kept(self) -> Mask:
        """Which chunks are representatives."""
        rows = self.first + np.arange(len(self.representative))
        kept: Mask = self.representative == rows
        return kept

    @property
    def chunks_in(self) -> int:
        """Number of chunks."""
        return len(self.representative)

    @property
    def chunks_out(self) -> int:
        """Number of representatives."""
        return int(self.kept.sum())

    @property
    def duplicates(self) -> Mapping[str, int]:
        """Chunks left out, by method."""
        counts = np.bincount(self.method[~self.kept], minlength=len(Method))
        return {method.word: int(counts[method]) for method in Method}

    @property
    def elsewhere(self) -> int:
        """Chunks left out whose representative stands on an earlier day."""
        return int((self.representative < self.first).sum())

    @property
    def duplicate_ratio(self) -> float:
        """Share of the chunks that are left out; 0 when there are none."""
        return 1 - self.chunks_out / self.chunks_in if self.chunks_in else 0.0

    def largest(self, most: int) -> Sequence[tuple[int, int]]:
        """The rows that stand for most chunks of the day, and for how many, themselves in."""
        rows, counts = np.unique(self.representative, return_counts=True)
        order = np.lexsort((rows, -counts))[:most]
        return [(int(rows[n]), int(counts[n])) for n in order if counts[n] > 1]


def group(window: Window, texts: TextsOf, config: DedupConfig) -> Groups:
    """Decide who represents the chunks of the window's last day.

    The earliest date, then the smallest id represents. The result depends on the chunks
    alone: not on their order within a day, nor on anything decided for earlier days.

    Args:
        window: signatures of the day and of the days before it that are looked at.
        texts: gives the texts of candidates; asked in rounds of ``PROVED_AT_ONCE`` rows.
        config: what counts as a copy, beyond what decided the signatures.
    """
    order = window.ranking()
    leader = _same(window.digests("normalized"), order)
    first = int(window.starts[-2])
    mine = leader[first:]
    near, similarity = _near(window, order, leader, np.unique(mine), texts, config)
    representative = near[mine]
    exact = window.digests("exact")
    same = (exact[first:] == exact[representative]).all(axis=1)
    method = np.where(same, Method.EXACT, Method.NORMALIZED)
    method[representative != mine] = Method.NEAR
    return Groups(first, representative, method.astype(np.int8), _upwards(similarity[mine]))


def _same(digests: Digests, order: Rows) -> Rows:
    """For each row the first row, in ``order``, with the same digest."""
    keys = digests[order]
    places = np.lexsort((keys[:, 0], keys[:, 1]))  # stable: the first in order comes first
    ordered = keys[places]
    begins = np.ones(len(order), dtype=np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    leader = np.empty(len(order), dtype=np.int64)
    firsts = places[np.flatnonzero(begins)[np.cumsum(begins) - 1]]
    leader[order[places]] = order[firsts]
    return leader


def _near(
    window: Window, order: Rows, leader: Rows, wanted: Rows, texts: TextsOf, config: DedupConfig
) -> tuple[Rows, npt.NDArray[np.float64]]:
    """For each row its representative among near-duplicates, and how similar that is.

    Looks at the first row of each text, and only at clusters with rows that are ``wanted``.
    """
    representative = np.arange(len(order))
    similarity = np.ones(len(order))
    firsts = order[leader[order] == order]
    keys = window.keys(firsts)
    comparable = (keys != 0).all(axis=1)
    firsts, keys = firsts[comparable], keys[comparable]
    important = np.isin(firsts, wanted)
    for places in _rounds(members(clusters(keys)), important):
        rows = firsts[places]
        for one in lead(keys[places], _proof(rows, texts), config.threshold):
            representative[rows[one.row]] = rows[one.leader]
            similarity[rows[one.row]] = one.similarity
    return representative, similarity


def _proof(rows: Rows, texts: TextsOf) -> Shingles:
    """The shingles of ``rows``, in their order; texts are read in the order of the files."""
    order = np.argsort(rows)
    places = np.empty_like(order)
    places[order] = np.arange(len(rows))
    return joined([shingled(piece) for piece in texts(rows[order])]).at(places)


def _rounds(parts: Iterable[Rows], important: Mask) -> Iterator[Rows]:
    """Whole clusters, as many as are proved in one round; the unimportant are left out.

    Clusters share no key, so that together they are decided as they would be alone.
    """
    held: list[Rows] = []
    size = 0
    for part in parts:
        if not important[part].any():
            continue
        if held and size + len(part) > PROVED_AT_ONCE:
            yield np.sort(np.concatenate(held))
            held, size = [], 0
        held.append(part)
        size += len(part)
    if held:
        yield np.sort(np.concatenate(held))


def _upwards(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """As float32, never less than it was: 0.9 stays at or above the threshold 0.9."""
    short = values.astype(np.float32)
    less = short < values
    short[less] = np.nextafter(short[less], np.float32(2))
    return short


def _words(digests: pa.Array) -> Digests:
    """The bytes of a ``binary(16)`` array, without a copy."""
    size = digests.type.byte_width
    start = digests.offset * size
    data = memoryview(digests.buffers()[1])[start : start + len(digests) * size]
    return np.frombuffer(data, dtype=np.uint64).reshape(-1, 2)
