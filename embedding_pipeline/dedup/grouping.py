"""Who represents whom.

Belongs here: the decision, as a pure function of the keys, and its result. Does not
belong here: reading chunks or writing them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_pipeline.dedup.keys import Keys

Rows: TypeAlias = npt.NDArray[np.int64]
"""Numbers of rows."""

Mask: TypeAlias = npt.NDArray[np.bool_]
"""One yes or no a row."""


@dataclass(frozen=True)
class Groups:
    """The verdict over ``n`` chunks.

    Attributes:
        representative: for each chunk the row of its representative; its own row when
            it is one itself.
        exact: whether its text is the representative's very text.
    """

    representative: Rows
    exact: Mask

    @property
    def kept(self) -> Mask:
        """Which chunks are representatives."""
        kept: Mask = self.representative == np.arange(len(self.representative))
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
        exact = int((self.exact & ~self.kept).sum())
        return {"exact": exact, "normalized": self.chunks_in - self.chunks_out - exact}

    @property
    def duplicate_ratio(self) -> float:
        """Share of the chunks that are left out; 0 when there are none."""
        return 1 - self.chunks_out / self.chunks_in if self.chunks_in else 0.0


def group(keys: Keys) -> Groups:
    """Chunks with the same normalised key are one group; its smallest id represents it.

    The order of the chunks has no influence on who represents whom.
    """
    size = len(keys.ids)
    order = np.lexsort((_ranks(keys.ids), keys.normalized[:, 0], keys.normalized[:, 1]))
    ordered = keys.normalized[order]
    starts = np.ones(size, dtype=np.bool_)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    representative = np.empty(size, dtype=np.int64)
    representative[order] = order[np.flatnonzero(starts)[np.cumsum(starts) - 1]]
    exact = (keys.exact == keys.exact[representative]).all(axis=1)
    return Groups(representative, exact)


def _ranks(ids: pa.Array) -> Rows:
    """The place of each id when they are sorted by their UTF-8 bytes."""
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[pc.array_sort_indices(ids).to_numpy()] = np.arange(len(ids))
    return ranks
