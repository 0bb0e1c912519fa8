"""Which days' sources are no longer what ``raw_chunks`` was made from.

Belongs here: comparing each made day with its source, cheaply first, surely on doubt. Does
not belong here: running anything (``defs.source_change``). Blocking, as sources are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from embedding_pipeline.errors import DataError
from embedding_pipeline.sources.base import ChunkSource
from embedding_pipeline.sources.marks import Mark, digest_of
from embedding_pipeline.vectors.datasets import Datasets

SURE_AT_ONCE: Final = 30
"""Days that are read in one go when their stamps differ; the next look takes the others."""


@dataclass(frozen=True)
class Look:
    """What a look at the source found.

    Attributes:
        changed: days whose source is another one, each with its stamp now.
        verified: days whose stamp differs though nothing else does, with that stamp.
        waiting: days in doubt that were not read yet.
    """

    changed: Mapping[str, str] = field(default_factory=dict)
    verified: Mapping[str, str] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()


def in_doubt(made: Mark, now: str, verified: str) -> bool:
    """Whether a day has to be read to know. Pure.

    A source that cannot tell gives no doubt; a day made by an earlier version, which kept
    no mark, is read once.
    """
    return bool(now) and now not in (made.stamp, verified)


def look(
    source: ChunkSource,
    datasets: Datasets,
    days: Iterable[str],
    verified: Mapping[str, str],
    *,
    most: int = SURE_AT_ONCE,
) -> Look:
    """Compare ``days`` with their source.

    Args:
        source: where chunks come from.
        datasets: what was made.
        days: days that were made.
        verified: ``Look.verified`` of the look before.
        most: how many days are read at most.

    Raises SourceError when the source cannot be reached: it is not taken for empty.
    """
    marks = {day: _mark(datasets, day) for day in days}
    now = {day: source.stamp(date.fromisoformat(day)) for day in marks}
    doubtful = [day for day in marks if in_doubt(marks[day], now[day], verified.get(day, ""))]
    found = {day: _same(source, marks[day], day) for day in doubtful[:most]}
    still = {day: stamp for day, stamp in verified.items() if now.get(day) == stamp}
    return Look(
        changed={day: now[day] for day, same in found.items() if not same},
        verified={**still, **{day: now[day] for day, same in found.items() if same}},
        waiting=tuple(doubtful[most:]),
    )


def _mark(datasets: Datasets, day: str) -> Mark:
    try:
        return Mark.from_metadata(datasets.raw_chunks(day).metadata())
    except DataError:
        return Mark()


def _same(source: ChunkSource, made: Mark, day: str) -> bool:
    return digest_of(source.read(date.fromisoformat(day))) == made.digest
