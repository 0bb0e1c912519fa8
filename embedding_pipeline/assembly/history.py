"""The history of costs from settings, with its advice, and the report in ``data_dir``.

Belongs here: finding the parts. Does not belong here: figures, advice or drawing
(``pipeline.history``).
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
from sqlalchemy import Connection

from embedding_pipeline.assembly.parts import build_counter, build_datasets, has_state, open_store
from embedding_pipeline.catalog import MODELS
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.errors import DataError
from embedding_pipeline.ledger.spending import local_day
from embedding_pipeline.pipeline.history import gathering
from embedding_pipeline.pipeline.history.advice import Advice, Circumstances, advise
from embedding_pipeline.pipeline.history.figures import History, Overlap, Spending
from embedding_pipeline.pipeline.history.report import render, spending_table
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.vectors.atomic import replacing

REPORT: Final = "cost_history/report.html"
SPENDING: Final = "spending.parquet"


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
    spent, overlap = await _booked(settings, clock)
    history = History(
        today=local_day(int(clock.now() * 1000), zone),
        spending=spent,
        savings=saved,
        stored=await asyncio.to_thread(gathering.stored, datasets),
        partitions=partitions,
        overlap=overlap,
    )
    return CostHistory(history, tuple(advise(history, circumstances(settings))))


async def _booked(settings: Settings, clock: Clock) -> tuple[list[Spending], Overlap | None]:
    """What needs the ledger; nothing where there is none yet."""
    if not has_state(settings):
        return [], None
    zone, datasets = settings.zone, build_datasets(settings)
    counter, limit = build_counter(settings), settings.chunking.overlap_tokens

    def overlap(connection: Connection) -> Overlap | None:
        try:
            return gathering.overlap(connection, datasets, counter, limit) if limit else None
        except DataError:  # a damaged day is its own check's business
            return None

    with open_store(settings, clock) as store:
        spent = await store.read(lambda connection: gathering.spending(connection, zone))
        return spent, await store.read(overlap)


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
        batch_api=settings.batch_api != "off",
        shortens=frozenset(str(spec.space) for spec in MODELS if spec.supports_dimensions),
        price=settings.model_spec.nano_usd_per_token,
        overlap_tokens=settings.chunking.overlap_tokens,
    )


def write_report(settings: Settings, found: CostHistory, clock: Clock | None = None) -> Path:
    """Write the page and its figures under ``data_dir``, replacing those before. Blocking.

    Returns:
        Where the page is; ``spending.parquet`` is beside it.

    Raises:
        DataError: the disk does not take it.
    """
    now = datetime.fromtimestamp((clock or SystemClock()).now(), settings.zone)
    made = f"As of {now:%Y-%m-%d %H:%M} ({settings.partitions.timezone})"
    path = settings.data_path / REPORT
    try:
        with replacing(path) as temporary:
            temporary.write_text(render(found.history, found.advice, made), encoding="utf-8")
        with replacing(path.with_name(SPENDING)) as temporary:
            pq.write_table(spending_table(found.history.spending), temporary)
    except OSError as exc:
        raise DataError(f"{path} cannot be written: {exc.strerror}") from exc
    return path
