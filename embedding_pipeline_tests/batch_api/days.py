"""Two days of texts in a project's folder, made as far as their representatives."""

import json
from pathlib import Path

import numpy as np

from embedding_pipeline.assembly.parts import build_counter, build_datasets, build_source
from embedding_pipeline.assembly.reading import read_vectors
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
from embedding_pipeline.pipeline.raw import build_raw_chunks
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline_tests.batch_api.world import MODEL, texts_of
from embedding_pipeline_tests.engine.quick import settings_for
from embedding_pipeline_tests.fake_openai.replies import expected_vector

DAYS = ("2026-01-01", "2026-01-02")
TEXTS = texts_of(12)


def settings_of(folder: Path, base_url: str, **batch_api: object) -> Settings:
    """The settings of the project in ``folder``; its source is written."""
    data = folder / "source"
    data.mkdir(parents=True)
    for number, day in enumerate(DAYS):
        rows = [
            {"id": f"{day}-{place}", "text": text, "project": f"p{place % 2}"}
            for place, text in enumerate(TEXTS)
            if place % 3 != number  # a third of the texts is on one day only
        ]
        (data / f"{day}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return settings_for(
        folder,
        base_url,
        source={"kind": "files", "path": str(data / "{date}.jsonl")},
        partitions={"start_date": DAYS[0]},
        dedup={"near": False},
        retry={"timeout_seconds": 60},
        batch_api={"mode": "on", **batch_api},
    )


async def make_days(settings: Settings) -> None:
    """The steps before the embeddings."""
    source, datasets, counter = (
        build_source(settings),
        build_datasets(settings),
        build_counter(settings),
    )
    for day in DAYS:
        build_raw_chunks(source, datasets, counter, settings.chunking, day)
        build_deduped_chunks(datasets, settings.dedup, day)


def vectors_of(settings: Settings) -> bool:
    """Whether a reader gets every chunk of both days, each with the vector of its own text."""
    table = read_vectors(DAYS[0], DAYS[-1], with_text=True, settings=settings)
    texts = table.column("text").to_pylist()
    expected = [expected_vector(MODEL, text, settings.dimensions) for text in texts]
    found = matrix_of(table.column("vector").combine_chunks())
    return len(texts) == 16 and bool(np.array_equal(found, np.stack(expected)))
