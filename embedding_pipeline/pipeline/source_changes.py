"""Which days' sources are no longer what ``raw_chunks`` was made from.

Belongs here: comparing each made day with its source, cheaply first, surely on doubt. Does
not belong here: running anything (``defs.source_change``). Blocking, as sources are.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from embedding_pipeline.errors import DataError
from embedding_pipeline.sources.base import ChunkSource
from embedding_pipeline.sources.marks import Mark, digest_of
from embedding_pipeline.vectors.datasets import Datasets

READING_SECONDS: Final = 20.0
"""How long days in doubt are read, one after another; the next look takes the others. A tick
that takes longer than a minute is cut off."""


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
    known: Callable[[str, str], bool] = lambda _day, _stamp: False,
    elapsed: Callable[[], float] = lambda: 0.0,
) -> Look:
    """Compare ``days`` with their source.

    Args:
        source: where chunks come from.
        datasets: what was made.
        days: days that were made.
        verified: ``Look.verified`` of the look before.
        known: whether a day with this stamp is known to have changed: it is not read again.
        elapsed: seconds since the look began.

    Raises SourceError when the source cannot be reached: it is not taken for empty.
    """
    marks = {day: _mark(datasets, day) for day in days}
    now = {day: source.stamp(date.fromisoformat(day)) for day in marks}
    doubtful = [day for day in marks if in_doubt(marks[day], now[day], verified.get(day, ""))]
    found: dict[str, bool] = {}
    for day in doubtful:
        if known(day, now[day]):
            found[day] = False
        elif not found or elapsed() < READING_SECONDS:
            found[day] = _same(source, marks[day], day)
    still = {day: stamp for day, stamp in verified.items() if now.get(day) == stamp}
    return Look(
        changed={day: now[day] for day, same in found.items() if not same},
        verified={**still, **{day: now[day] for day, same in found.items() if same}},
        waiting=tuple(day for day in doubtful if day not in found),
    )


def _mark(datasets: Datasets, day: str) -> Mark:
    try:
        return Mark.from_metadata(datasets.raw_chunks(day).metadata())
    except DataError:
        return Mark()


def _same(source: ChunkSource, made: Mark, day: str) -> bool:
    return digest_of(source.read(date.fromisoformat(day))) == made.digest
