"""Stand-ins, as the settings want them: which model makes them.

Belongs here: choosing and opening it. Does not belong here: making any
(``pipeline.stand_ins``).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from embedding_pipeline.assembly.parts import build_counter
from embedding_pipeline.catalog import DEFAULT_MODEL, find_model
from embedding_pipeline.pipeline.stand_ins import StandIns
from embedding_pipeline.records import Space
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.vectors.datasets import Datasets


def stand_in_space() -> Space:
    """The space of stand-ins: the bundled model's."""
    return find_model(DEFAULT_MODEL).space


@asynccontextmanager
async def open_stand_ins(settings: Settings, datasets: Datasets) -> AsyncIterator[StandIns]:
    """What makes stand-ins under ``on_outage: degrade``, and else only removes them.

    The model is loaded when the first one is made.
    """
    if settings.on_outage != "degrade" or settings.model_spec.is_local:
        yield StandIns(None, datasets)
        return
    from embedding_pipeline.embedders.local import LocalEmbedder

    async with LocalEmbedder(build_counter(settings).count) as embedder:
        yield StandIns(embedder, datasets)
