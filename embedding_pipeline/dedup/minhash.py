"""Signatures: few numbers that tell how alike two sets of shingles are.

Belongs here: minimal hashes, and the band keys made of them. Does not belong here:
shingles, or what is done with candidates.

Why our own: the hashes are kept in files and must stay the same over versions, the work
is done outside Python's global lock, and the keys leave as arrays. ``docs`` has the
comparison with libraries.
"""

from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from embedding_pipeline.dedup.config import HASHES, Banding
from embedding_pipeline.dedup.shingles import Shingles
from embedding_pipeline.dedup.words import Hashes, mixed

VERSION: Final = 1
"""Of everything that decides a band key; a change makes old signature files unreadable."""

Minima: TypeAlias = npt.NDArray[np.uint32]
"""Minimal hashes, shape ``(n, HASHES)``."""

_BLOCK: Final = 4096
"""Shingles hashed in one go: the products of one block stay in the processor's cache."""


def _random(stream: int, size: int) -> Hashes:
    """Numbers that are the same for ever."""
    return mixed(np.arange(1, size + 1, dtype=np.uint64) + np.uint64(stream << 32))


_FACTORS: Final = (_random(1, HASHES) >> np.uint64(32)).astype(np.uint32)[:, None] | np.uint32(1)
_SHIFTS: Final = (_random(2, HASHES) >> np.uint64(32)).astype(np.uint32)[:, None]
_WEIGHTS: Final = _random(3, HASHES) | np.uint64(1)


def minima(shingles: Shingles) -> Minima:
    """For each text and each of the hash functions, the least hash over its shingles.

    Two texts agree in one place with the probability of their Jaccard similarity. Texts
    without shingles have the largest number everywhere.
    """
    found = np.full((len(shingles.offsets) - 1, HASHES), np.iinfo(np.uint32).max, np.uint32)
    rows = np.flatnonzero(shingles.counts)
    values = (shingles.hashes >> np.uint64(32)).astype(np.uint32)
    starts = shingles.offsets[rows]
    place = 0
    while place < len(rows):
        stop = int(np.searchsorted(starts, starts[place] + _BLOCK))
        end = int(starts[stop]) if stop < len(rows) else len(values)
        products = _FACTORS * values[starts[place] : end]
        products += _SHIFTS
        least = np.minimum.reduceat(products, starts[place:stop] - starts[place], axis=1)
        found[rows[place:stop]] = least.T
        place = stop
    return found


def band_keys(signatures: Minima, banding: Banding, salts: Hashes) -> Hashes:
    """One number a band, shape ``(n, bands)``; equal where all hashes of the band are.

    ``salts`` keep apart what must not be compared: one number a text, such as its
    project's. 0 is never a key: it stands for a text that has none.
    """
    keys = np.empty((len(signatures), banding.bands), np.uint64)
    for band in range(banding.bands):
        places = slice(band * banding.rows, (band + 1) * banding.rows)
        sums = (signatures[:, places].astype(np.uint64) * _WEIGHTS[places]).sum(axis=1)
        keys[:, band] = mixed(mixed(sums) + salts + np.uint64(band))
    return np.maximum(keys, np.uint64(1))
