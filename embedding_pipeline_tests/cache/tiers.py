"""Every tier of the cache behind one face, for the suite that holds them to one contract.

Belongs here: how a test writes to a tier, and reaches the stored bytes themselves.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from redis import Redis
from sqlalchemy import Connection, select, update

from embedding_pipeline.cache import database
from embedding_pipeline.cache.codec import OVERHEAD, PREFIX, is_reference, size_of
from embedding_pipeline.cache.durable import DurableTier
from embedding_pipeline.cache.memory import MemoryTier
from embedding_pipeline.cache.redis import RedisTier, redis_client
from embedding_pipeline.cache.stack import Stack
from embedding_pipeline.cache.tier import CacheTier, Lookup
from embedding_pipeline.records import Digest, Space, Vectors
from embedding_pipeline.state.beside import beside
from embedding_pipeline.state.schema import vectors as table
from embedding_pipeline.state.store import Store

KINDS = ("memory", "redis", "sqlite", "files", "postgres", "stack on sqlite", "stack on postgres")
CODED = tuple(kind for kind in KINDS if kind != "memory")
"""Those that keep bytes outside the process, which may be damaged there."""


class Subject(Protocol):
    """A tier under test."""

    async def get(self, digests: Sequence[Digest]) -> Lookup: ...

    async def put(self, digests: Sequence[Digest], vectors: Vectors) -> None: ...

    async def values(self, digests: Sequence[Digest]) -> list[bytes]:
        """The stored bytes."""

    async def overwrite(self, digests: Sequence[Digest], values: Sequence[bytes]) -> None:
        """Put other bytes in their place, wherever they are stored."""


class Near:
    """A tier above the durable one."""

    def __init__(self, tier: CacheTier, client: "Redis | None" = None) -> None:
        self._tier = tier
        self._client = client

    async def get(self, digests: Sequence[Digest]) -> Lookup:
        return await self._tier.get_many(digests)

    async def put(self, digests: Sequence[Digest], vectors: Vectors) -> None:
        await self._tier.put_many(digests, vectors)

    async def values(self, digests: Sequence[Digest]) -> list[bytes]:
        assert self._client is not None
        assert isinstance(self._tier, RedisTier)
        found = self._client.mget([self._tier.key(digest) for digest in digests])
        assert isinstance(found, list)
        return [value for value in found if isinstance(value, bytes)]

    async def overwrite(self, digests: Sequence[Digest], values: Sequence[bytes]) -> None:
        assert self._client is not None
        assert isinstance(self._tier, RedisTier)
        pairs = zip(digests, values, strict=True)
        self._client.mset({self._tier.key(digest): value for digest, value in pairs})


class Durable:
    """The durable tier."""

    def __init__(self, store: Store, number: int, space: Space, dtype: str) -> None:
        self._store, self._number, self._space, self._dtype = store, number, space, dtype
        self._tier = DurableTier(store, number, space)

    async def get(self, digests: Sequence[Digest]) -> Lookup:
        return await self._tier.get_many(digests)

    async def put(self, digests: Sequence[Digest], vectors: Vectors) -> None:
        number, space, dtype, paid = self._number, self._space, self._dtype, [1] * len(digests)
        await self._store.write(
            lambda c: database.put_many(c, number, space, digests, vectors, paid, dtype=dtype)
        )

    async def values(self, digests: Sequence[Digest]) -> list[bytes]:
        """The row's value, followed by what it refers to in a file."""

        def work(connection: Connection) -> list[bytes]:
            rows = self._rows(connection)
            return [rows[digest] + _apart(connection, rows[digest]) for digest in digests]

        return await self._store.read(work)

    async def overwrite(self, digests: Sequence[Digest], values: Sequence[bytes]) -> None:
        def work(connection: Connection) -> None:
            rows = self._rows(connection)
            for digest, value in zip(digests, values, strict=True):
                size = len(rows[digest])
                if value[size:] and value[:size] == rows[digest]:
                    _scribble(connection, rows[digest], value[size:])
                    continue
                same = (table.c.space_id == self._number) & (table.c.digest == digest)
                connection.execute(update(table).where(same).values(value=value[:size]))

        await self._store.write(work)

    def _rows(self, connection: Connection) -> dict[Digest, bytes]:
        query = select(table.c.digest, table.c.value).where(table.c.space_id == self._number)
        return {Digest(bytes(key)): bytes(value) for key, value in connection.execute(query)}


def _place(connection: Connection, value: bytes) -> tuple[Path, int, int]:
    """The file, offset and size of what a value refers to; every payer of the suite is 1."""
    files = beside(connection)
    assert files is not None
    offset = int.from_bytes(value[OVERHEAD:], "little")
    return files.folder / "0" / "1", offset, size_of(value[:PREFIX], len(value)) - len(value)


def _apart(connection: Connection, value: bytes) -> bytes:
    if not is_reference(value):
        return b""
    path, offset, size = _place(connection, value)
    return path.read_bytes()[offset : offset + size]


def _scribble(connection: Connection, value: bytes, payload: bytes) -> None:
    path, offset, _ = _place(connection, value)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(payload)


class Stacked:
    """Memory and Redis over the durable tier; each look starts with an empty memory."""

    def __init__(self, redis: RedisTier, client: "Redis", durable: Durable) -> None:
        self.redis, self.durable = Near(redis, client), durable
        self._stack = Stack([redis], durable._tier)
        self._width = durable._space.native_dimensions

    async def get(self, digests: Sequence[Digest]) -> Lookup:
        stack = self._stack.under(MemoryTier(1 << 24, self._width))
        found, _ = await stack.get_many(digests)
        return found

    async def put(self, digests: Sequence[Digest], vectors: Vectors) -> None:
        await self.durable.put(digests, vectors)
        await self._stack.put_many(digests, vectors)

    async def values(self, digests: Sequence[Digest]) -> list[bytes]:
        durable, near = await self.durable.values(digests), await self.redis.values(digests)
        assert [value[-self._width :] for value in durable] == [v[-self._width :] for v in near]
        return near

    async def overwrite(self, digests: Sequence[Digest], values: Sequence[bytes]) -> None:
        await self.durable.overwrite(digests, values)
        await self.redis.overwrite(digests, values)


@asynccontextmanager
async def opened(
    kind: str, request: pytest.FixtureRequest, store: Store | None, space: Space, dtype: str
) -> AsyncIterator[Subject]:
    """A tier of this kind; those of one test share their server, file or database."""
    if kind == "memory":
        yield Near(MemoryTier(1 << 24, space.native_dimensions))
        return
    if store is None:
        async with _redis(request, space, dtype) as (tier, client):
            yield Near(tier, client)
        return
    number = await store.write(lambda c: database.space_id(c, space))
    durable = Durable(store, number, space, dtype)
    if not kind.startswith("stack"):
        yield durable
        return
    async with _redis(request, space, dtype) as (tier, client):
        yield Stacked(tier, client, durable)


@asynccontextmanager
async def _redis(
    request: pytest.FixtureRequest, space: Space, dtype: str
) -> AsyncIterator[tuple[RedisTier, "Redis"]]:
    url = request.getfixturevalue("redis_url")
    tier = RedisTier(redis_client(url), "store", space, dtype, 1000)
    with Redis.from_url(url) as client:
        yield tier, client
    await tier.aclose()
