"""What of some work no vector is there for, as the Batch API wants it.

Belongs here: streaming the misses of texts or days, and counting what they are worth. Does
not belong here: sending them (``batch_api``), or the decision to.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

from embedding_pipeline.batch_api.files import Wanted
from embedding_pipeline.pipeline.embed import COLUMNS, work_of
from embedding_pipeline.pipeline.plan import Lookup
from embedding_pipeline.pipeline.planned import Fresh
from embedding_pipeline.service.preparing import InputRules
from embedding_pipeline.service.work import WorkBatch
from embedding_pipeline.vectors.datasets import Datasets

Work = Callable[[], AsyncIterator[WorkBatch]]
"""The same work from the beginning, each time it is called."""


def embedded_days(datasets: Datasets, days: Sequence[str]) -> Work:
    """The representatives of days whose datasets are there, as a run would embed them."""

    async def work() -> AsyncIterator[WorkBatch]:
        for day in days:
            batches = datasets.deduped_chunks(day).iter_batches(COLUMNS)
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                yield work_of(day, batch)

    return work


async def misses(work: Work, rules: InputRules, lookup: Lookup) -> AsyncIterator[list[Wanted]]:
    """The keys that have no vector and are not known to be refused, with their texts.

    A key may come again in a later group.
    """
    async for batch in work():
        prepared = await asyncio.to_thread(rules.prepare, batch.texts, batch.tokens, batch.accounts)
        known = await lookup([item.digest for item in prepared.items])
        yield [
            Wanted(*item)
            for item in prepared.items
            if item.digest not in known.cached and item.digest not in known.refused
        ]


async def tokens_of(groups: AsyncIterator[list[Wanted]], enough: int) -> int:
    """Tokens of the keys, each counted once; no further than ``enough``."""
    fresh, tokens = Fresh(), 0
    async for group in groups:
        tokens += sum(item.tokens for item in group if fresh.add(item.digest))
        if tokens >= enough:
            break
    return tokens
