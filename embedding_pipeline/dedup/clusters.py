"""Which rows hang together: union-find, for millions of rows at a time.

Belongs here: connected components. Does not belong here: what connects rows.
"""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedding_pipeline.dedup.words import Hashes

Rows: TypeAlias = npt.NDArray[np.int64]
"""Numbers of rows."""


def clusters(keys: Hashes) -> Rows:
    """For each row of ``keys`` the smallest row it hangs together with.

    Rows hang together that share the key of a column, and those that do with them.
    """
    root = np.arange(len(keys), dtype=np.int64)
    links = [_links(keys[:, column]) for column in range(keys.shape[1])]
    none = np.empty(0, np.int64)
    ones = np.concatenate([none, *(one for one, _ in links)])
    others = np.concatenate([none, *(other for _, other in links)])
    while len(ones):
        low = np.minimum(root[ones], root[others])
        high = np.maximum(root[ones], root[others])
        np.minimum.at(root, high, low)
        _flatten(root)
        apart = root[ones] != root[others]
        ones, others = ones[apart], others[apart]
    return root


def members(labels: Rows) -> Iterator[Rows]:
    """The rows of each cluster of two or more, each ascending."""
    order = np.argsort(labels, kind="stable")
    cuts = np.flatnonzero(np.diff(labels[order])) + 1
    edges = np.concatenate([np.zeros(1, np.int64), cuts, np.array([len(labels)])])
    for place in np.flatnonzero(np.diff(edges) > 1):
        yield order[edges[place] : edges[place + 1]]


def _links(keys: Hashes) -> tuple[Rows, Rows]:
    """Pairs of neighbours among the rows with equal keys."""
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    return order[same], order[same + 1]


def _flatten(root: Rows) -> None:
    while True:
        further = root[root]
        if np.array_equal(further, root):
            return
        root[:] = further
