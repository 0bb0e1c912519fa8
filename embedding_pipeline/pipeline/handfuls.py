"""Days that are worked on together because they are small.

Belongs here: which days, and what is asked of the store for all of them at once. Does not
belong here: the work.

A day costs a few questions, threads and files, whatever it holds. That is nothing beside a
large day's work, and nearly all of a small one's.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from embedding_pipeline.errors import DataError
from embedding_pipeline.ledger import deferred, quarantine
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.vectors.datasets import Datasets

MOST_DAYS: Final = 32
"""Days in a handful; bounds how long a run that is told to end goes on, too."""

MOST_CHUNKS: Final = 20_000
"""Chunks in a handful of more than one day: as many are held in memory at once."""


@dataclass(frozen=True)
class Missing:
    """The chunks of a day that have no vector, by id.

    Attributes:
        quarantined: the provider refuses them.
        deferred: they were left for later.
    """

    quarantined: frozenset[str] = frozenset()
    deferred: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        """Whatever the reason."""
        return self.quarantined | self.deferred


async def handfuls(datasets: Datasets, days: Sequence[str]) -> Sequence[tuple[str, ...]]:
    """``days`` in order, cut into handfuls. Reads the footers of ``raw_chunks``."""
    sizes = await asyncio.to_thread(lambda: [(day, _chunks(datasets, day)) for day in days])
    return list(cut(sizes))


def cut(sizes: Iterable[tuple[str, int]]) -> Iterator[tuple[str, ...]]:
    """Days and their sizes, cut into handfuls. Pure."""
    held: list[str] = []
    chunks = 0
    for day, size in sizes:
        if held and (len(held) == MOST_DAYS or chunks + size > MOST_CHUNKS):
            yield tuple(held)
            held, chunks = [], 0
        held.append(day)
        chunks += size
    if held:
        yield tuple(held)


async def missing_in(service: ServiceCore, days: Iterable[str]) -> Mapping[str, Missing]:
    """What is missing of each of ``days`` in the service's space, in one reading."""
    number, wanted = service.space_id, sorted(set(days))
    if not wanted:
        return {}
    refused, later = await service.store.read(
        lambda c: (
            quarantine.chunk_ids_of(c, number, wanted),
            deferred.chunk_ids_of(c, number, wanted),
        )
    )
    return {day: Missing(refused[day], later[day]) for day in wanted}


def _chunks(datasets: Datasets, day: str) -> int:
    """How many chunks a day has; 0 where its file cannot be read: its work will say so."""
    try:
        return datasets.raw_chunks(day).rows()
    except DataError:
        return 0
