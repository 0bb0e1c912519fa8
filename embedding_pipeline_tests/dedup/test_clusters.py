"""Union-find over columns of keys, against a search from row to row."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.dedup.clusters import clusters, members
from embedding_pipeline.dedup.words import Hashes

TABLES = st.integers(1, 4).flatmap(
    lambda columns: st.lists(
        st.lists(st.integers(1, 12), min_size=columns, max_size=columns), min_size=1, max_size=30
    )
)


def table(rows: list[list[int]]) -> Hashes:
    return np.array(rows, np.uint64)


def model(rows: list[list[int]]) -> list[int]:
    """The smallest row that can be reached from each."""

    def reached(start: int) -> set[int]:
        seen, waiting = {start}, [start]
        while waiting:
            own = rows[waiting.pop()]
            for other, its in enumerate(rows):
                if other not in seen and any(a == b for a, b in zip(own, its, strict=True)):
                    seen.add(other)
                    waiting.append(other)
        return seen

    return [min(reached(row)) for row in range(len(rows))]


@given(TABLES)
def test_rows_hang_together_that_share_a_key_or_a_neighbour(rows: list[list[int]]) -> None:
    assert clusters(table(rows)).tolist() == model(rows)


@given(TABLES)
def test_clusters_are_an_equivalence(rows: list[list[int]]) -> None:
    labels = clusters(table(rows))
    assert (labels[labels] == labels).all(), "a label is its own"
    assert (labels <= np.arange(len(rows))).all()
    found = [part.tolist() for part in members(labels)]
    assert all(len({int(labels[row]) for row in part}) == 1 for part in found)
    assert all(len(part) > 1 for part in found)
    alone = len(rows) - sum(map(len, found))
    assert alone + len(found) == len(set(labels.tolist()))


def test_a_chain_of_any_length_is_one_cluster() -> None:
    size = 5000
    order = np.random.default_rng(1).permutation(size)
    keys = np.stack([order // 2, (order + 1) // 2], axis=1).astype(np.uint64)
    assert (clusters(keys) == 0).all()


def test_without_keys_every_row_is_alone() -> None:
    assert clusters(np.empty((3, 0), np.uint64)).tolist() == [0, 1, 2]
    assert list(members(clusters(np.empty((0, 2), np.uint64)))) == []
