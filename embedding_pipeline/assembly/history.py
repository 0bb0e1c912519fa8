"""The history of costs from settings, with its advice, and the report in ``data_dir``.

Belongs here: finding the parts. Does not belong here: figures, advice or drawing
(``pipeline.history``).
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

import pyarrow.parquet as pq

from embedding_pipeline.assembly.parts import build_counter, build_datasets, has_state, open_store
from embedding_pipeline.catalog import MODELS
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.errors import DataError
from embedding_pipeline.ledger.spending import local_day
from embedding_pipeline.pipeline.history import gathering, what_if
from embedding_pipeline.pipeline.history.advice import Advice, Circumstances, advise
from embedding_pipeline.pipeline.history.figures import History, NearCopies, Overlap, Spending
from embedding_pipeline.pipeline.history.report import render, spending_table
from embedding_pipeline.settings.tree import Settings

T = TypeVar("T")

REPORT: Final = "cost_history/report.html"
SPENDING: Final = "cost_history/spending.parquet"


@dataclass(frozen=True)
class CostHistory:
    """The figures, and what follows from them."""

    history: History
    advice: tuple[Advice, ...]


async def cost_history(settings: Settings, clock: Clock | None = None) -> CostHistory:
    """Everything the ledger, the summaries and the files say. Reads only.

    Raises:
        StateError: the ledger cannot be read.
    """
    clock = clock or SystemClock()
    datasets, zone = build_datasets(settings), settings.zone
    saved, partitions = await asyncio.to_thread(gathering.savings, datasets)
    booked = await _booked(settings, clock)
    history = History(
        today=local_day(int(clock.now() * 1000), zone),
        spending=booked.spending,
        savings=saved,
        stored=await asyncio.to_thread(gathering.stored, datasets),
        partitions=partitions,
        overlap=booked.overlap,
        near=booked.near,
    )
    return CostHistory(history, tuple(advise(history, circumstances(settings))))


@dataclass(frozen=True)
class _Booked:
    """What needs the ledger."""

    spending: Sequence[Spending] = ()
    overlap: Overlap | None = None
    near: NearCopies | None = None


async def _booked(settings: Settings, clock: Clock) -> _Booked:
    """Nothing where there is no ledger yet; a damaged day is its own check's business."""
    if not has_state(settings):
        return _Booked()
    zone, datasets, space = settings.zone, build_datasets(settings), settings.model_spec.space
    counter, limit = build_counter(settings), settings.chunking.overlap_tokens
    kept = await _unless_damaged(asyncio.to_thread(what_if.candidates, datasets, settings.dedup))
    with open_store(settings, clock) as store:
        return _Booked(
            await store.read(lambda c: gathering.spending(c, zone)),
            await _unless_damaged(
                store.read(lambda c: gathering.overlap(c, datasets, counter, limit))
            ),
            await store.read(lambda c: what_if.paid(c, space, kept)) if kept else None,
        )


async def _unless_damaged(work: Awaitable[T]) -> T | None:
    try:
        return await work
    except DataError:
        return None


def circumstances(settings: Settings) -> Circumstances:
    """What is set, as far as advice depends on it."""
    priced = [settings.priced(spec.name) for spec in MODELS]
    batch = {
        spec.name: spec.batch_nano_usd_per_token
        for spec in priced
        if spec.batch_nano_usd_per_token is not None
    }
    return Circumstances(
        batch_prices=batch,
        batch_api=settings.batch_api.mode != "off",
        shortens=frozenset(str(spec.space) for spec in MODELS if spec.supports_dimensions),
        price=settings.model_spec.nano_usd_per_token,
        overlap_tokens=settings.chunking.overlap_tokens,
        near=settings.dedup.near,
    )


def write_report(settings: Settings, found: CostHistory, clock: Clock | None = None) -> str:
    """Write the page and its figures under ``data_dir``, replacing those before. Blocking.

    Returns:
        Where the page is; ``spending.parquet`` is beside it.

    Raises:
        DataError: the disk does not take it.
    """
    now = datetime.fromtimestamp((clock or SystemClock()).now(), settings.zone)
    made = f"As of {now:%Y-%m-%d %H:%M} ({settings.partitions.timezone})"
    storage = build_datasets(settings).storage
    place = storage.location(REPORT)
    try:
        storage.write(REPORT, render(found.history, found.advice, made).encode())
        with storage.replacing(SPENDING) as sink:
            pq.write_table(spending_table(found.history.spending), sink)
    except OSError as exc:
        raise DataError(f"{place} cannot be written: {exc.strerror or exc}") from exc
    return place
