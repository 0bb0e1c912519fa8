"""Collecting what a fetcher delivers."""

from collections.abc import Sequence
from contextlib import aclosing

from embedding_pipeline.records import Priority, digest_of
from embedding_pipeline.service.fetching import Fetcher
from embedding_pipeline.service.work import Item, Landing
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import (
    Books,
    read_books,
)


async def collect(
    fetcher: Fetcher, wanted: Sequence[Item], landings: list[Landing] | None = None
) -> list[Landing]:
    """All landings; those before an error are in ``landings``."""
    landed = [] if landings is None else landings
    async with aclosing(fetcher.fetch(wanted, Priority.NORMAL)) as stream:
        async for landing in stream:
            landed.append(landing)
    return landed


def texts_of(landings: Sequence[Landing], texts: Sequence[str]) -> list[str]:
    names = {digest_of(text): text for text in texts}
    return sorted(names[digest] for landing in landings for digest in landing.digests)


async def books_of(store: Store) -> Books:
    return await store.read(read_books)


TEXTS = ["alpha", "beta", "gamma", "delta", "epsilon"]
TOKENS = sum(map(len, TEXTS))
