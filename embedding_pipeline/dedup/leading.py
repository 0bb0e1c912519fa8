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

from embedding_pipeline.dedup.shingles import Shingles, jaccard
from embedding_pipeline.dedup.words import Hashes

_REMEMBERED: Final = 8192
"""Sets of shingles kept at hand, about 15 kB each."""


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
    buckets: dict[int, list[int]] = {}
    of = lru_cache(maxsize=_REMEMBERED)(shingles.of)
    for row, bands in enumerate(_shared(keys)):
        met = sorted({leader for key in bands for leader in buckets.get(key, ())})
        for leader in met:
            similarity = jaccard(of(leader), of(row))
            if similarity >= threshold:
                found.append(Led(row, leader, similarity))
                break
        else:
            for key in bands:
                buckets.setdefault(key, []).append(row)
    return found


def _shared(keys: Hashes) -> Iterator[list[int]]:
    """For each row those of its keys that another row has as well."""
    _, places, counts = np.unique(keys, return_inverse=True, return_counts=True)
    shared = (counts > 1)[places.reshape(keys.shape)]
    flat = keys[shared].tolist()
    ends = np.cumsum(shared.sum(axis=1)).tolist()
    return (flat[start:end] for start, end in pairwise([0, *ends]))
