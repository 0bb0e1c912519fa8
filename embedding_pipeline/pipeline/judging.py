"""The checks on ``embeddings`` of some days at once, with what the store knows of them.

Belongs here: what has to be asked before days can be judged, asked once for all of them. Does
not belong here: judging (``checks``).
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from itertools import chain

import pyarrow as pa

from embedding_pipeline.errors import DataError
from embedding_pipeline.pipeline.accounting import copies_of, vector_days
from embedding_pipeline.pipeline.checks import ACCOUNTED, all_checks
from embedding_pipeline.pipeline.handfuls import Missing, missing_in
from embedding_pipeline.pipeline.reports import CheckVerdict
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.vectors.datasets import Datasets


async def judge_embeddings(
    service: ServiceCore, datasets: Datasets, days: Sequence[str], only: Collection[str]
) -> Mapping[str, Mapping[str, CheckVerdict]]:
    """The verdicts on each of ``days`` in the service's space, of the checks named in ``only``.

    Data that cannot be read is a failed verdict. Raises StateError.
    """
    copies: Mapping[str, pa.Table | None] = {}
    elsewhere: Mapping[str, Sequence[str]] = {}
    missing: Mapping[str, Missing] = {}
    if ACCOUNTED in only:
        copies = await asyncio.to_thread(lambda: {day: _copies(datasets, day) for day in days})
        elsewhere = {day: vector_days(one) for day, one in copies.items() if one is not None}
        missing = await missing_in(service, {*days, *chain(*elsewhere.values())})

    def judge(day: str) -> Mapping[str, CheckVerdict]:
        mine = missing.get(day, Missing())
        return all_checks(
            datasets,
            service.space,
            service.dimensions,
            day,
            mine.quarantined,
            mine.deferred,
            earlier={other: missing[other].all for other in elsewhere.get(day, ())},
            copies=copies.get(day),
            only=only,
        )

    return await asyncio.to_thread(lambda: {day: judge(day) for day in days})


def _copies(datasets: Datasets, day: str) -> pa.Table | None:
    """``copies_of``; None where they cannot be read, which the check will say."""
    try:
        return copies_of(datasets, day)
    except DataError:
        return None
