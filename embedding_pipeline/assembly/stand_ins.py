"""Stand-ins, as the settings want them: which model makes them.

Belongs here: choosing and opening it. Does not belong here: making any
(``pipeline.stand_ins``).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from embedding_pipeline.assembly.embedder import build_local
from embedding_pipeline.pipeline.stand_ins import StandIns
from embedding_pipeline.records import Space
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.vectors.datasets import Datasets


def stand_in_space(settings: Settings) -> Space:
    """The space of stand-ins: that of the local provider's model, else the bundled one's."""
    return settings.priced(settings.stand_in_model).space


@asynccontextmanager
async def open_stand_ins(settings: Settings, datasets: Datasets) -> AsyncIterator[StandIns]:
    """What makes stand-ins under ``on_outage: degrade``, and else only removes them.

    The model is loaded when the first one is made. Raises ConfigurationError when what runs it
    is not installed.
    """
    if settings.on_outage != "degrade" or settings.model_spec.is_local:
        yield StandIns(None, datasets)
        return
    async with build_local(settings, settings.stand_in_model) as embedder:
        yield StandIns(embedder, datasets)
