"""``embeddings`` of a day that cannot be finished: what was found out is kept."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from embedding_pipeline.errors import ProviderFault, ProviderRefused
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.records import EmbeddingResult
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline_tests.engine.chunks import write_deduped
from embedding_pipeline_tests.service.harness import HandClock, Provider, open_service

pytestmark = pytest.mark.anyio

DAY = "2026-01-01"
TEXTS = [*(f"text {n}" for n in range(7)), "poison", *(f"more {n}" for n in range(7)), "the end"]


class Ending(Provider):
    """Refuses one text by name, and after that everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.poison = lambda text: text == "poison"
        self.names_index = True
        self.refused = asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        if "the end" in texts:
            await self.refused.wait()
            raise ProviderRefused("the key is wrong", ProviderFault("fake"))
        result = await super().embed(texts)
        self.refused.set()
        return result


async def test_a_text_refused_before_the_run_failed_is_in_quarantine(tmp_path: Path) -> None:
    datasets, ending = Datasets(tmp_path), Ending()
    write_deduped(datasets, DAY, TEXTS)
    async with open_service(tmp_path, ending, HandClock(through=1.0)) as service:
        with pytest.raises(ProviderRefused):
            await build_embeddings(service, datasets, [DAY])
        held = await service.quarantined(DAY)
    assert held == {f"{TEXTS.index('poison'):08d}"}
    assert not datasets.embeddings(service.space, DAY).exists()
    asked = Provider()
    async with open_service(tmp_path, asked, HandClock(through=1.0)) as service:
        (report,) = await build_embeddings(service, datasets, [DAY])
    assert report.quarantined == 1
    assert not any("poison" in texts for texts in asked.calls), "it is not searched for again"
