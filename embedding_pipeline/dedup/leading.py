"""Within a cluster: which texts stand for which others, each proven.

Belongs here: the choice of representatives among candidates, by exact comparison. Does
not belong here: finding the candidates (``clusters``), or reading texts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np

from embedding_pipeline.dedup.config import HASHES
from embedding_pipeline.dedup.minhash import Minima, minima
from embedding_pipeline.dedup.shingles import Shingles, jaccard
from embedding_pipeline.dedup.words import Hashes

_REMEMBERED: Final = 8192
"""Sets of shingles kept at hand, about 15 kB each."""


_FEW: Final = 16
"""So many candidates are compared exactly without further ado."""


@dataclass(frozen=True)
class Led:
    """A text that another stands for.

    Attributes:
        row: the text.
        leader: its representative.
        similarity: their exact Jaccard similarity, at least the threshold.
    """

    row: int
    leader: int
    similarity: float


def lead(keys: Hashes, shingles: Shingles, threshold: float) -> Sequence[Led]:
    """Who is represented by whom among texts in the order of their rank.

    A text is represented by the first representative that shares a band with it and whose
    exact similarity reaches the threshold; if there is none, it is one itself. So every
    representative stands for itself, and every merge is proven against the very text that
    is kept: similarity is not handed on from one copy to the next.
    """
    found: list[Led] = []
    likely = _Likely(minima(shingles), threshold)
    buckets: dict[int, list[int]] = {}
    of = lru_cache(maxsize=_REMEMBERED)(shingles.of)
    for row, bands in enumerate(_shared(keys)):
        met = {leader for key in bands for leader in buckets.get(key, ())}
        for leader in likely.among(sorted(met), row):
            similarity = jaccard(of(leader), of(row))
            if similarity >= threshold:
                found.append(Led(row, leader, similarity))
                break
        else:
            for key in bands:
                buckets.setdefault(key, []).append(row)
    return found


@dataclass(frozen=True)
class _Likely:
    """Sifts many candidates by their signatures, so that few are left to compare exactly.

    Texts that share most of their words but not enough, such as a long disclaimer, are
    candidates of each other by the thousand.
    """

    signatures: Minima
    threshold: float

    def among(self, candidates: Sequence[int], row: int) -> Sequence[int]:
        """Those of ``candidates`` that may reach the threshold with ``row``.

        A text at the threshold is lost with a probability of 3 in 100,000: the share of
        hashes that agree is then four standard deviations below what is expected.
        """
        if len(candidates) <= _FEW:
            return candidates
        deviation = (self.threshold * (1 - self.threshold) / HASHES) ** 0.5
        agree = (self.signatures[candidates] == self.signatures[row]).mean(axis=1)
        places = np.flatnonzero(agree >= self.threshold - 4 * deviation)
        return [candidates[place] for place in places.tolist()]


def _shared(keys: Hashes) -> Iterator[list[int]]:
    """For each row those of its keys that another row has as well."""
    _, places, counts = np.unique(keys, return_inverse=True, return_counts=True)
    shared = (counts > 1)[places.reshape(keys.shape)]
    flat = keys[shared].tolist()
    ends = np.cumsum(shared.sum(axis=1)).tolist()
    return (flat[start:end] for start, end in pairwise([0, *ends]))
