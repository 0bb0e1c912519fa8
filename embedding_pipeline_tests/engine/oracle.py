"""What must hold after any run, whatever went wrong on the way.

Belongs here: running one day against the fake and judging vectors, quarantine and books.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.errors import EmbeddingPipelineError
from embedding_pipeline.ledger import quarantine, queries
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline_tests.engine.chunks import write_deduped
from embedding_pipeline_tests.engine.quick import MODEL, QuickClock
from embedding_pipeline_tests.fake_openai.replies import expected_vector
from embedding_pipeline_tests.fake_openai.server import KEY

DAY = "2026-01-01"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        error: what it raised, or None.
        vectors: by chunk number.
        held: reasons by chunk number.
        deferred: numbers of the chunks left for later.
        settled: tokens the ledger has as settled.
        unknown: tokens the ledger has as unknown.
        open_flights: requests nobody has booked.
    """

    error: EmbeddingPipelineError | None
    vectors: dict[int, np.ndarray]
    held: dict[int, str]
    deferred: frozenset[int]
    settled: int
    unknown: int
    open_flights: int


def prepare(settings: Settings, texts: Sequence[str]) -> None:
    """Make the day's chunks."""
    write_deduped(build_datasets(settings), DAY, texts)


async def run(settings: Settings, *, redrive: bool = False) -> Outcome:
    """Embed the day once, from a process that knows nothing of earlier runs."""
    error: EmbeddingPipelineError | None = None
    async with EmbeddingService(settings=settings, api_key=KEY, clock=QuickClock()) as service:
        if redrive:
            await service.store.write(quarantine.redrive)
        try:
            await build_embeddings(service, build_datasets(settings), [DAY])
        except EmbeddingPipelineError as exc:
            error = exc
        sums = await service.store.read(queries.sums)
        held = await service.store.read(quarantine.listing)
        waiting = await service.deferred(DAY)
        flights = await service.store.read(
            lambda c: c.exec_driver_sql("SELECT count(*) FROM flights").scalar_one()
        )
    unknown = sum(entry.unknown_nano_usd for entry in sums) // 20
    return Outcome(
        error,
        vectors_of(settings),
        {int(chunk.chunk_id): chunk.reason for chunk in held},
        frozenset(map(int, waiting)),
        sum(entry.tokens for entry in sums) - unknown,
        unknown,
        int(flights),
    )


def vectors_of(settings: Settings) -> dict[int, np.ndarray]:
    file = build_datasets(settings).embeddings(settings.model_spec.space, DAY)
    if not file.exists():
        return {}
    found: dict[int, np.ndarray] = {}
    for batch in file.iter_batches():
        rows = matrix_of(batch.column("vector"))
        ids = [int(name) for name in batch.column("chunk_id").to_pylist()]
        found.update(zip(ids, rows, strict=True))
    return found


def assert_right(outcome: Outcome, texts: Sequence[str]) -> None:
    """Every vector is its text's, and a run that ended well explains every chunk."""
    for number, vector in outcome.vectors.items():
        expected = expected_vector(MODEL, texts[number], 1536)
        assert np.array_equal(vector, expected), f"chunk {number} has another text's vector"
    if outcome.error is None:
        ends = [*outcome.vectors, *outcome.held, *outcome.deferred]
        assert sorted(ends) == list(range(len(texts))), "each chunk has ended in one way"
    assert outcome.open_flights == 0


def state_file(settings: Settings) -> Path:
    """Where the state of a test is."""
    return settings.data_path / "state.db"
