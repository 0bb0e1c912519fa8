"""The shared tier: vectors in Redis (or Valkey), for a time, for all machines.

Belongs here: keys, values and lifetimes in Redis, and mapping its errors to ours. Does not
belong here: what happens while it is down (``guarding``). Needs the extra ``redis``.

A value is what the codec makes, the same as in the durable tier, and is believed no further
than its checksum. Its key names the store it belongs to: two stores may share one Redis.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from embedding_pipeline.cache.codec import decode_into, encode
from embedding_pipeline.cache.tier import CacheTier, Lookup
from embedding_pipeline.errors import ConfigurationError, MissingExtra, StateError
from embedding_pipeline.records import Digest, Space, Vectors
from embedding_pipeline.remote import DISTRUSTED, distrusts

if TYPE_CHECKING:
    from redis.asyncio import Redis

T = TypeVar("T")

PREFIX: Final = "embedding_pipeline:vectors:"
TIMEOUT_SECONDS: Final = 5.0
"""A Redis that takes longer is treated as down: the durable tier answers as well."""

AT_ONCE: Final = 256
"""Keys in one command: bounds how long Redis serves nobody else (2 ms at 1,536 dimensions)."""

IN_PLACE: Final = 64
"""So many entries are coded on the spot; more go to a thread."""


class RedisTier(CacheTier):
    """Vectors of one space in Redis.

    Args:
        client: closed with the tier.
        store: identity of the durable store.
        space: the space of all vectors.
        dtype: how values are written.
        ttl_seconds: how long a value stays after it was last written.
    """

    name = "redis"

    def __init__(
        self, client: "Redis", store: str, space: Space, dtype: str, ttl_seconds: int
    ) -> None:
        self._redis = client
        self._errors = _errors()
        self._put = self._redis.register_script(_script())
        self._space, self._dtype, self._ttl = space, dtype, ttl_seconds
        self._prefix = f"{PREFIX}{store}:{space}:".encode()
        self._where = _where(client)

    def key(self, digest: Digest) -> bytes:
        """Where a vector is."""
        return self._prefix + digest

    async def get_many(self, digests: Sequence[Digest]) -> Lookup:
        values: list[bytes | None] = []
        for start in range(0, len(digests), AT_ONCE):
            keys = [self.key(digest) for digest in digests[start : start + AT_ONCE]]
            values += await self._ask(self._redis.mget(keys))
        if len(digests) <= IN_PLACE:
            return self._decode(digests, values)
        return await asyncio.to_thread(self._decode, digests, values)

    async def put_many(self, digests: Sequence[Digest], vectors: Vectors) -> None:
        for start in range(0, len(digests), AT_ONCE):
            part = digests[start : start + AT_ONCE]
            rows = vectors[start : start + AT_ONCE]
            if len(part) <= IN_PLACE:
                values = encode(self._space, part, rows, self._dtype)
            else:
                values = await asyncio.to_thread(encode, self._space, part, rows, self._dtype)
            await self._ask(self._put([self.key(digest) for digest in part], [self._ttl, *values]))

    async def aclose(self) -> None:
        await self._redis.aclose()

    def _decode(self, digests: Sequence[Digest], values: Sequence[bytes | None]) -> Lookup:
        width = self._space.native_dimensions
        out = np.zeros((len(digests), width), np.float32)
        there = [row for row, value in enumerate(values) if value is not None]
        keys = [digests[row] for row in there]
        bad = decode_into(out, there, self._space, keys, [v for v in values if v is not None])
        found = np.zeros(len(digests), np.bool_)
        found[there] = True
        found[[there[position] for position in bad]] = False
        return Lookup(found, out, tuple(dict.fromkeys(keys[position] for position in bad)))

    async def _ask(self, question: Awaitable[Any]) -> Any:
        try:
            return await question
        except self._errors as exc:
            raise _failed(self._where, exc) from exc


@dataclass(frozen=True)
class Measured:
    """What a server says of itself.

    Attributes:
        where: its host, or the path of its socket.
        used_mb: memory in use, MiB.
        bounded: it forgets something before its memory is full.
    """

    where: str
    used_mb: float
    bounded: bool


async def measure(client: "Redis") -> Measured:
    """Ask a server how full it may get; the client is closed then. Raises StateError."""
    where = _where(client)
    try:
        memory = await client.info("memory")
    except _errors() as exc:
        raise _failed(where, exc) from exc
    finally:
        await client.aclose()
    bounded = bool(memory.get("maxmemory")) and memory.get("maxmemory_policy") != "noeviction"
    return Measured(where, float(memory.get("used_memory", 0)) / 2**20, bounded)


def _where(client: "Redis") -> str:
    address = client.connection_pool.connection_kwargs
    return str(address.get("host") or address.get("path"))


def _failed(where: str, exc: Exception) -> StateError:
    if distrusts(exc):
        return StateError(f"cache in Redis at {where}: {DISTRUSTED}")
    return StateError(
        f"cache in Redis at {where}: {type(exc).__name__}; check redis_url, and that the server "
        "runs and lets us read and write"
    )


def redis_client(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> "Redis":
    """A client of the server at ``url``; connects on first use.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout_seconds: longest wait for an answer.

    Raises:
        MissingExtra: redis-py is not installed.
        ConfigurationError: the URL is not one of Redis.
    """
    try:
        from redis import asyncio as client
    except ImportError as exc:
        raise MissingExtra("redis_url", "redis") from exc
    try:
        return client.Redis.from_url(
            url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds
        )
    except ValueError as exc:
        raise ConfigurationError(
            "redis_url is not a Redis URL; write it like redis://host:6379/0"
        ) from exc


def _errors() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError

    return RedisError, OSError


def _script() -> str:
    return resources.files("embedding_pipeline.cache").joinpath("put.lua").read_text("utf-8")
