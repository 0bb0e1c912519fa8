"""The chunks nearest to a query, by brute force over the stored vectors.

Belongs here: scoring and the running best ``k``. Does not belong here: embedding the
query, or an index (vectors go to the store of the user's choice for that).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import Space, Vectors
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline.vectors.datasets import Datasets

_SLACK: Final = 1e-4
"""How far a float32 matrix product may be off; whoever is this near is scored exactly."""


@dataclass(frozen=True)
class Hit:
    """One chunk near a query.

    Attributes:
        score: cosine similarity, -1 to 1.
        chunk_id: the chunk, a representative.
        document_id: the document it is part of.
        project: the tenant it belongs to.
        date: the partition it was found in, ``YYYY-MM-DD``.
        content_hash: sha256 of its text, hex.
        text: its text.
    """

    score: float
    chunk_id: str
    document_id: str
    project: str
    date: str
    content_hash: str
    text: str = ""


def search(
    datasets: Datasets,
    space: Space,
    query: Vectors,
    k: int = 10,
    *,
    days: Iterable[str] | None = None,
    dimensions: int | None = None,
) -> list[Hit]:
    """The ``k`` chunks most similar to ``query``, best first.

    A text that a project has on several days is found once, on the first of them.
    Equal scores are ordered by date, then chunk id. The vectors are streamed; texts
    are read for the hits alone. Stored vectors are unit vectors (a check holds that).

    Args:
        datasets: where to search.
        space: the space of the vectors and of ``query``.
        query: float32, ``dimensions`` components (one vector, or a matrix of one row).
        k: how many hits at most.
        days: the days to search; None means every day that has vectors.
        dimensions: length of the vectors; stored ones may be longer. None means native.

    Raises DataError for ``k`` below 1, a query of another length or without direction,
    and missing or damaged files.
    """
    if k < 1:
        raise DataError(f"k is {k}; a search wants at least one hit")
    unit = _unit(query, space.native_dimensions if dimensions is None else dimensions)
    best: list[Hit] = []
    for day in datasets.embedded_days(space) if days is None else sorted(set(days)):
        for batch in datasets.served_embeddings(space, day, dimensions).iter_batches():
            worst = best[-1].score if len(best) >= k else -np.inf
            best = _best([*best, *_candidates(batch, unit, day, worst)], k)
    texts = {day: _texts(datasets, day, best) for day in sorted({hit.date for hit in best})}
    return [replace(hit, text=texts[hit.date][hit.chunk_id]) for hit in best]


def _unit(query: Vectors, dimensions: int) -> npt.NDArray[np.float64]:
    flat = np.asarray(query, dtype=np.float64).reshape(-1)
    if flat.shape != (dimensions,):
        raise DataError(f"the query has {flat.size} components, the vectors {dimensions}")
    norm = np.linalg.norm(flat)
    if not (np.isfinite(norm) and norm > 0):
        raise DataError("the query's vector is zero or not finite; it has no neighbours")
    unit: npt.NDArray[np.float64] = flat / norm
    return unit


def _candidates(
    batch: pa.RecordBatch, unit: npt.NDArray[np.float64], day: str, worst: float
) -> list[Hit]:
    """Rows that may be among the best: found by a float32 product, scored in float64.

    The product's last digits depend on the batch a row is in; the score must not, or
    equal texts would not tie.
    """
    vectors = matrix_of(batch.column("vector"))
    rough = vectors @ unit.astype(np.float32)
    rows = np.flatnonzero(rough >= worst - _SLACK)
    exact = (vectors[rows] * unit).sum(axis=1)
    ids = batch.select(["chunk_id", "document_id", "project", "content_hash"]).take(rows)
    return [
        Hit(score=float(score), date=day, **row)
        for score, row in zip(exact, ids.to_pylist(), strict=True)
    ]


def _best(candidates: Iterable[Hit], k: int) -> list[Hit]:
    """The first ``k`` by score, date and id, each text of a project once."""
    ordered = sorted(candidates, key=lambda hit: (-hit.score, hit.date, hit.chunk_id))
    first: dict[tuple[str, str], Hit] = {}
    for hit in ordered:
        first.setdefault((hit.project, hit.content_hash), hit)
    return list(first.values())[:k]


def _texts(datasets: Datasets, day: str, hits: Sequence[Hit]) -> Mapping[str, str]:
    """The texts of the hits of one day, by chunk id. Raises DataError when one has none."""
    wanted = {hit.chunk_id for hit in hits if hit.date == day}
    file = datasets.raw_chunks(day)
    with file.open() as chunks:
        found = chunks.find("chunk_id", pa.array(sorted(wanted)), ["chunk_id", "text"])
    texts = dict(zip(*found.to_pydict().values(), strict=True))
    if strays := wanted - texts.keys():
        raise DataError(
            f"{min(strays)!r} has a vector but is not in {file.location}; {file.remedy}"
        )
    return texts
