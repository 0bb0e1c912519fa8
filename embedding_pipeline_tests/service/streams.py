"""Streams of batches for bulk runs, and what must be true of what comes out."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import numpy as np

from embedding_pipeline.embedders.fake import fake_vector, fake_vectors
from embedding_pipeline.planning.inputs import Policy, combine, split_within
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import Account, Priority
from embedding_pipeline.service.aside import Aside
from embedding_pipeline.service.bulk import BulkParts, BulkRun, OnProgress, Source
from embedding_pipeline.service.work import FilledBatch, Row, WorkBatch
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import (
    MAX_TOKENS,
    WIDTH,
    Characters,
    HandClock,
    Provider,
    open_fetcher,
    rules,
)

CAPS = RequestCaps(max_inputs=4, max_input_tokens=MAX_TOKENS, target_tokens=80)
ROOMY = 1 << 20
DAYS = ("2026-01-01", "2026-01-02")
POISON = "poison"


def batch(texts: Sequence[str], first: int = 0, day: str = DAYS[0]) -> WorkBatch:
    """Chunks of one day, of two projects."""
    return WorkBatch(
        day,
        [f"chunk {first + n}" for n in range(len(texts))],
        list(texts),
        Characters().count(texts),
        [Account(f"project {len(text) % 2}", "", day) for text in texts],
    )


def stream(batches: Sequence[WorkBatch]) -> AsyncIterator[WorkBatch]:
    """The batches, with a turn of the loop before each."""

    async def generate() -> AsyncIterator[WorkBatch]:
        for one in batches:
            await asyncio.sleep(0)
            yield one

    return generate()


async def portions(batches: Sequence[WorkBatch], most: int) -> AsyncIterator[Sequence[WorkBatch]]:
    """The batches, so many at a time."""
    for start in range(0, len(batches), most):
        yield batches[start : start + most]


def bulk(
    store: Store,
    provider: Provider,
    source: Source,
    *,
    policy: Policy = "reject",
    window_rows: int = ROOMY,
    on_progress: OnProgress | None = None,
) -> BulkRun:
    clock = HandClock(through=1.0)
    parts = BulkParts(
        open_fetcher(store, provider, clock),
        store,
        rules(policy),
        CAPS,
        Priority.BULK,
        clock,
        Aside(),
        window_bytes=window_rows * 4 * WIDTH,
    )
    return BulkRun(parts, source, on_progress=on_progress)


async def drain(run: BulkRun, filled: list[FilledBatch] | None = None) -> list[FilledBatch]:
    """All batches; those before an error are in ``filled``. A run that hangs is an error."""
    out = [] if filled is None else filled
    async with asyncio.timeout(600), aclosing(run.batches()) as batches:
        async for one in batches:
            out.append(one)
            await asyncio.sleep(0)
    return out


def expected(text: str, policy: Policy) -> np.ndarray | None:
    """The right vector of a text, or None where it is refused."""
    if not text.strip() or text.startswith(POISON):
        return None
    if len(text) <= MAX_TOKENS:
        return fake_vector("hash", text, WIDTH)
    if policy == "reject":
        return None
    if policy == "truncate":
        return fake_vector("hash", text[:MAX_TOKENS], WIDTH)
    parts = split_within(text, MAX_TOKENS, Characters().truncate)
    lengths = np.array([len(part) for part in parts], np.int32)
    return combine(fake_vectors("hash", parts, WIDTH), lengths)


def assert_right(one: FilledBatch, policy: Policy) -> None:
    """Every row is decided, and is what its text deserves."""
    for row, text in enumerate(one.work.texts):
        vector = expected(text, policy)
        refused = one.status[row] == Row.REFUSED
        assert one.status[row] in {Row.EMBEDDED, Row.CACHED, Row.REFUSED}
        assert refused == (vector is None) == (row in one.refused)
        assert (one.vectors[row] == (0 if vector is None else vector)).all()
        assert (row in one.derived) == (len(text) > MAX_TOKENS and policy != "reject")
