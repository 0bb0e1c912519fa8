"""Stand-ins: at every moment a chunk has its vector or one that stands in; in the end none does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from embedding_pipeline.embedders.fake import FakeEmbedder, fake_vector
from embedding_pipeline.errors import InputRefused, ProviderFault, ProviderRefused
from embedding_pipeline.errors import TransientProviderError as Down
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.pipeline.reports import EmbedReport
from embedding_pipeline.pipeline.stand_ins import StandInDay, StandIns
from embedding_pipeline.records import EmbeddingResult
from embedding_pipeline.service.aside import Aside
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline.vectors.datasets import Datasets, EmbeddingsFile
from embedding_pipeline_tests.engine.chunks import write_deduped
from embedding_pipeline_tests.service.harness import (
    SPACE,
    HandClock,
    Provider,
    fault,
    open_service,
)

pytestmark = pytest.mark.anyio

DAY = "2026-01-01"
TEXTS = [f"text {number:02}" for number in range(32)]
IDS = {f"{number:08d}" for number in range(len(TEXTS))}
INSTEAD = FakeEmbedder(dimensions=5, model="instead")


def ids_in(file: EmbeddingsFile) -> set[str]:
    if not file.exists():
        return set()
    return {name for batch in file.iter_batches() for name in batch["chunk_id"].to_pylist()}


def real(datasets: Datasets) -> set[str]:
    return ids_in(datasets.embeddings(SPACE, DAY))


def instead(datasets: Datasets) -> set[str]:
    return ids_in(datasets.stand_ins(INSTEAD.space, DAY))


class Watched(StandIns):
    """Looks at the files after each step."""

    looks = 0

    def of_day(self, partition: str, aside: Aside, run_id: str) -> StandInDay:
        outer = self

        class Day(StandInDay):
            async def publish(self) -> None:
                await super().publish()
                outer.look()

            async def settle(self) -> None:
                outer.look()
                await super().settle()
                outer.look()

        return Day(self.embedder, self.datasets, partition, aside, run_id)

    def look(self) -> None:
        self.looks += 1
        there = real(self.datasets) | instead(self.datasets)
        assert there == IDS, "a chunk has neither"


async def run(
    folder: Path, provider: Provider, stand_ins: StandIns | None, down_from: int | None
) -> EmbedReport:
    if down_from is not None:
        provider.script = {number: Down("out", fault()) for number in range(down_from, 100)}
    clock = HandClock(through=10.0)
    async with open_service(folder, provider, clock, defers_outages=True) as service:
        datasets = Datasets(folder)
        (report,) = await build_embeddings(service, datasets, [DAY], stand_ins=stand_ins)
    return report


async def test_from_one_outage_to_the_next_and_to_the_end(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path)
    write_deduped(datasets, DAY, TEXTS)
    watched = Watched(INSTEAD, datasets)
    for expected, down_from in ((32, 0), (24, 1), (16, 1), (0, None)):
        report = await run(tmp_path, Provider(), watched, down_from)
        assert report.deferred == report.stand_ins == expected
        assert instead(datasets) == IDS - real(datasets), "stand-ins for the others, no more"
        assert len(instead(datasets)) == expected
    assert watched.looks == 12
    assert datasets.stand_in_files(DAY) == []
    assert INSTEAD.space not in datasets.spaces()


async def test_they_are_the_other_models_vectors_of_exactly_these_texts(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path)
    write_deduped(datasets, DAY, TEXTS)
    await run(tmp_path, Provider(), StandIns(INSTEAD, datasets), 0)
    file = datasets.stand_ins(INSTEAD.space, DAY)
    assert file.provenance().space == INSTEAD.space
    for batch in file.iter_batches():
        names = batch["chunk_id"].to_pylist()
        for name, vector in zip(names, matrix_of(batch["vector"]), strict=True):
            assert np.array_equal(vector, fake_vector("instead", TEXTS[int(name)], 5))


async def test_without_a_model_those_there_are_go_with_the_next_run(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path)
    write_deduped(datasets, DAY, TEXTS)
    await run(tmp_path, Provider(), StandIns(INSTEAD, datasets), 0)
    await run(tmp_path, Provider(), None, 1)
    assert instead(datasets) == IDS, "a run beside the active space leaves them be"
    await run(tmp_path, Provider(), StandIns(None, datasets), 1)
    assert datasets.stand_in_files(DAY) == []


async def test_a_run_that_fails_leaves_them_as_they_were(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path)
    write_deduped(datasets, DAY, TEXTS)
    await run(tmp_path, Provider(), StandIns(INSTEAD, datasets), 0)
    wrong = Provider()
    wrong.script[1] = ProviderRefused("wrong key", fault())
    with pytest.raises(ProviderRefused):
        await run(tmp_path, wrong, StandIns(INSTEAD, datasets), None)
    assert instead(datasets) == IDS


class Picky(FakeEmbedder):
    """Refuses one text by its place."""

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        if TEXTS[3] in texts:
            place = texts.index(TEXTS[3])
            raise InputRefused("too long", ProviderFault("local", input_index=place))
        return await super().embed(texts)


async def test_a_text_the_other_model_refuses_costs_itself_alone(tmp_path: Path) -> None:
    datasets = Datasets(tmp_path)
    write_deduped(datasets, DAY, TEXTS)
    picky = Picky(dimensions=5, model="instead")
    report = await run(tmp_path, Provider(), StandIns(picky, datasets), 0)
    assert (report.deferred, report.stand_ins) == (32, 31)
    assert instead(datasets) == IDS - {"00000003"}
