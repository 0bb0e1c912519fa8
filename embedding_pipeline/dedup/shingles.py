"""Runs of words: what two texts are compared by.

Belongs here: shingles and their exact Jaccard similarity. Does not belong here: guessing
which texts are worth comparing (``minhash``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from embedding_pipeline.dedup.config import SHINGLE_WORDS
from embedding_pipeline.dedup.words import Hashes, Offsets, mixed, words_of

_PLACES: Final = mixed(np.arange(1, SHINGLE_WORDS + 1, dtype=np.uint64)) | np.uint64(1)
"""An odd factor for each place in a shingle, so that order matters."""


@dataclass(frozen=True)
class Shingles:
    """The shingles of n texts, one text after another, repeated ones included.

    Attributes:
        hashes: a number for each; equal shingles have equal numbers.
        offsets: where each text's shingles begin, and the end.
    """

    hashes: Hashes
    offsets: Offsets

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many shingles each text has."""
        return np.diff(self.offsets)

    def at(self, rows: Offsets) -> "Shingles":
        """The same for some of the texts, in the order of ``rows``."""
        counts = self.counts[rows]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        steps = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        return Shingles(self.hashes[np.repeat(self.offsets[rows], counts) + steps], offsets)

    def of(self, row: int) -> frozenset[int]:
        """The different shingles of one text."""
        return frozenset(self.hashes[self.offsets[row] : self.offsets[row + 1]].tolist())


def shingles_of(texts: Sequence[str]) -> Shingles:
    """The shingles of normalised texts; one of fewer than ``SHINGLE_WORDS`` words has none."""
    words = words_of(texts)
    last = SHINGLE_WORDS - 1
    size = max(len(words.hashes) - last, 0)
    sums = np.zeros(size, np.uint64)
    for place, factor in enumerate(_PLACES):
        sums += words.hashes[place : place + size] * factor
    counts = np.diff(words.offsets)
    owners = np.repeat(np.arange(len(texts)), counts)
    whole = owners[:size] == owners[last : last + size]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.maximum(counts - last, 0))])
    return Shingles(mixed(sums[whole]), offsets)


def jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    """Shared shingles over all shingles: 1 for equal sets; 0 when nothing is shared."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if shared else 0.0
