"""``cache warm`` and ``cache import`` from settings: texts, prices, and the model to compare with.

Belongs here: finding the parts. Does not belong here: counting, buying or storing
(``pipeline``), or printing.
"""

import logging
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedding_pipeline.assembly.batch_way import provider_of
from embedding_pipeline.assembly.parts import (
    build_counter,
    build_datasets,
    has_state,
    open_store,
    peek_source,
)
from embedding_pipeline.assembly.service import open_service, service_config
from embedding_pipeline.clock import SystemClock
from embedding_pipeline.importing.found import Reader
from embedding_pipeline.importing.judging import Demands
from embedding_pipeline.pipeline.importing import ImportReport, ImportTerms, import_vectors
from embedding_pipeline.pipeline.plan import looking_up, nothing_known
from embedding_pipeline.pipeline.representatives import Representatives
from embedding_pipeline.pipeline.warming import (
    Texts,
    TextsPlan,
    WarmReport,
    day_batches,
    plan_texts,
    text_batches,
    warm,
)
from embedding_pipeline.planning.inputs import fits
from embedding_pipeline.records import Account, Vectors
from embedding_pipeline.service.bulk import OnProgress
from embedding_pipeline.service.work import WorkBatch
from embedding_pipeline.settings.environment import api_key
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.tokens import api_estimate

if TYPE_CHECKING:  # importing it brings in the SDK, a second of CPU
    from embedding_pipeline.assembly.batching import Sent
    from embedding_pipeline.pipeline.batching import Work

log = logging.getLogger(__name__)


@contextmanager
def representatives(settings: Settings) -> Iterator[Representatives]:
    """The representatives of days, whether their datasets were made or not."""
    chunks = Representatives(
        build_datasets(settings),
        peek_source(settings),
        build_counter(settings),
        settings.chunking,
        settings.dedup,
    )
    with chunks:
        yield chunks


def texts_of_days(chunks: Representatives, days: Sequence[str]) -> Iterator[str | None]:
    """Every raw text of some days."""
    for day in days:
        for _ in chunks.of(day, ("chunk_id",)):  # makes what is missing
            pass
        for batch in chunks.raw(day, ("text",)):
            yield from batch.column(0).to_pylist()


async def plan_warming(settings: Settings, texts: Texts) -> TextsPlan:
    """What warming these texts would take. Raises SourceError and StateError."""
    rules = service_config(settings, "").rules
    if not has_state(settings):
        return await plan_texts(texts, rules, nothing_known)
    with open_store(settings) as store:
        return await plan_texts(texts, rules, looking_up(store, settings.model_spec.space))


async def warm_texts(
    settings: Settings, texts: Texts, account: Account, total: int, on_progress: OnProgress
) -> WarmReport:
    """Have the vectors of these texts in the cache; see ``pipeline.warming.warm``.

    Where ``batch_api`` says so, what is missing goes into batches.
    """

    def work() -> AsyncIterator[WorkBatch]:
        return text_batches(texts, build_counter(settings), account)

    await _send_ahead(settings, work)
    async with open_service(settings) as service:
        return await warm(service, work(), total=total, on_progress=on_progress)


async def warm_days(
    settings: Settings, days: Sequence[str], total: int, on_progress: OnProgress
) -> WarmReport:
    """Have the vectors of these days in the cache; see ``pipeline.warming.warm``.

    Where ``batch_api`` says so, what is missing goes into batches.
    """
    with representatives(settings) as chunks:
        await _send_ahead(settings, lambda: day_batches(chunks, days))
        async with open_service(settings) as service:
            return await warm(
                service, day_batches(chunks, days), total=total, on_progress=on_progress
            )


async def submit_days(settings: Settings, days: Sequence[str]) -> "Sent":
    """Send what days lack to the Batch API, whatever ``batch_api`` says; no dataset is written.

    Raises:
        ConfigurationError: the model or the providers have no Batch API, or there is no key.
        ProviderError: an upload failed; what was uploaded before goes its way.
        SourceError: a day that was not made yet cannot be read.
        StateError: the store refused.
    """
    from embedding_pipeline.assembly.batching import send

    provider_of(settings)
    config = settings.batch_api.model_copy(update={"mode": "on"})
    forced = settings.model_copy(update={"batch_api": config})
    with representatives(forced) as chunks, open_store(forced) as store:
        return await send(forced, store, lambda: day_batches(chunks, days), _run_key(days))


async def _send_ahead(settings: Settings, work: "Work") -> None:
    if settings.batch_api.mode == "off":
        return
    from embedding_pipeline.assembly.batching import send

    with open_store(settings) as store:
        log.info("%s", await send(settings, store, work, "cache warm"))


def _run_key(days: Sequence[str]) -> str:
    return f"{days[0]} to {days[-1]}" if days else ""


@dataclass(frozen=True)
class Wanted:
    """What a person said of an import.

    Attributes:
        origin: the tool.
        project: for whom.
        renormalise: mend lengths other than 1.
        newlines_as_spaces: the tool replaced line breaks before sending.
        sample: how many to compare with the model.
    """

    origin: str
    project: str
    renormalise: bool
    newlines_as_spaces: bool
    sample: int


async def import_into_cache(settings: Settings, reader: Reader, wanted: Wanted) -> ImportReport:
    """Import into the space of the settings' model; see ``pipeline.importing``.

    A sample is compared where the model can be asked: it is local, or there is a key.
    """
    spec = settings.model_spec
    config = service_config(settings, "")
    demands = Demands(
        spec.native_dimensions,
        frozenset({spec.space.model.lower()}),
        wanted.renormalise,
        wanted.newlines_as_spaces,
        lambda texts: _too_long(config.rules.counter.count(texts), texts, spec.max_input_tokens),
    )
    terms = ImportTerms(
        spec.space, wanted.origin, wanted.project, settings.cache.dtype, wanted.sample
    )
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        compare = None
        if wanted.sample and (spec.is_local or api_key(settings.provider) is not None):
            full = settings.model_copy(
                update={"embedding": settings.embedding.model_copy(update={"dimensions": None})}
            )
            service = await stack.enter_async_context(open_service(full))

            async def compare(texts: Sequence[str]) -> Vectors:
                return await service.embed_many(texts, project=wanted.project)

        store = stack.enter_context(open_store(settings, clock))
        return await import_vectors(
            store,
            reader,
            demands,
            terms,
            clock=clock,
            rng=random.Random(),  # noqa: S311 - a sample
            compare=compare,
        )


def _too_long(
    counts: npt.NDArray[np.int32], texts: Sequence[str], limit: int
) -> npt.NDArray[np.bool_]:
    return ~fits(texts, counts, api_estimate(texts), limit)
