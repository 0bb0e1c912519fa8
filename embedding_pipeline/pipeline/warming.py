"""Vectors bought ahead: into the durable cache, and nowhere else.

Belongs here: running texts or representatives through the service without writing a
dataset, and what a file of texts would cost. Does not belong here: what days would cost
(``plan``), or how a vector is got (``service``).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from typing import Final

from embedding_pipeline.pipeline.embed import COLUMNS, work_of
from embedding_pipeline.pipeline.plan import Lookup
from embedding_pipeline.pipeline.planned import Fresh
from embedding_pipeline.pipeline.representatives import Representatives
from embedding_pipeline.records import Account, Priority
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.service.preparing import InputRules
from embedding_pipeline.service.work import Progress, WorkBatch
from embedding_pipeline.tokens import TokenCounter

ROWS: Final = 1024

Texts = Callable[[], Iterator[str | None]]
"""Texts from the beginning; None for a row that has none."""


@dataclass(frozen=True)
class TextsPlan:
    """What warming a file of texts would take.

    Attributes:
        texts: that can be used.
        unusable: rows without a text that can be used.
        refused: blank, or too long under the policy.
        to_embed: keys that have no vector yet.
        input_tokens: of those.
    """

    texts: int
    unusable: int
    refused: int
    to_embed: int
    input_tokens: int


async def plan_texts(texts: Texts, rules: InputRules, lookup: Lookup) -> TextsPlan:
    """Count what ``warm`` would send of a file, each text once. Raises SourceError."""
    fresh, account = Fresh(), Account("")
    usable = unusable = refused = keys = tokens = 0
    rows = texts()
    while batch := await asyncio.to_thread(lambda: list(islice(rows, ROWS))):
        words = [text for text in batch if text is not None]
        counts = await asyncio.to_thread(rules.counter.count, words)
        prepared = rules.prepare(words, counts, [account] * len(words))
        known = await lookup([item.digest for item in prepared.items])
        usable, unusable = usable + len(words), unusable + len(batch) - len(words)
        refused += len(prepared.refused)
        for item in prepared.items:
            settled = item.digest in known.cached or item.digest in known.refused
            if not settled and fresh.add(item.digest):
                keys, tokens = keys + 1, tokens + item.tokens
    return TextsPlan(usable, unusable, refused, keys, tokens)


async def text_batches(
    texts: Texts, counter: TokenCounter, account: Account
) -> AsyncIterator[WorkBatch]:
    """A file of texts as work; a text's id is its row."""
    rows = enumerate(texts())
    while batch := await asyncio.to_thread(lambda: list(islice(rows, ROWS))):
        usable = [(row, text) for row, text in batch if text is not None]
        words = [text for _, text in usable]
        counts = await asyncio.to_thread(counter.count, words)
        ids = [str(row) for row, _ in usable]
        yield WorkBatch(account.partition, ids, words, counts, [account] * len(words))


async def day_batches(chunks: Representatives, days: Sequence[str]) -> AsyncIterator[WorkBatch]:
    """The representatives of days as work, booked for their day as a run would."""
    for day in days:
        batches = chunks.of(day, COLUMNS)
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield work_of(day, batch)


@dataclass(frozen=True)
class WarmReport:
    """What warming did.

    Attributes:
        texts: looked at.
        embedded: bought now.
        cached: there already, or twice in the input.
        refused: without a vector: blank, too long, or refused by the provider.
        requests: calls made.
        input_tokens: billed.
        cost_nano_usd: money.
        seconds: time.
        in_batches: left to the Batch API, whose results are there within a day.
    """

    texts: int
    embedded: int
    cached: int
    refused: int
    requests: int
    input_tokens: int
    cost_nano_usd: int
    seconds: float
    in_batches: int = 0


async def warm(
    service: ServiceCore,
    batches: AsyncIterator[WorkBatch],
    *,
    total: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> WarmReport:
    """Have every text's vector in the cache. Nothing else is written.

    Args:
        service: an open service.
        batches: the work.
        total: texts in all, where known.
        on_progress: told how far it is, often.

    Raises:
        ProviderError: the provider stopped delivering; what was bought is in the cache.
        StateError: the store refused.
    """
    run = service.bulk(batches, total=total, on_progress=on_progress, priority=Priority.BULK)
    async with aclosing(run.batches()) as filled:
        async for _ in filled:
            pass
    tallies, progress = run.tallies.values(), run.progress()
    return WarmReport(
        sum(tally.chunks for tally in tallies),
        sum(tally.embedded for tally in tallies),
        sum(tally.cached for tally in tallies),
        sum(tally.quarantined for tally in tallies),
        sum(tally.requests for tally in tallies),
        progress.input_tokens,
        progress.cost_nano_usd,
        progress.seconds,
        sum(tally.deferred for tally in tallies),
    )
