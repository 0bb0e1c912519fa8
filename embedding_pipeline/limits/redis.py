"""The state of the limits in Redis (or Valkey): one Lua script, at the server's own time.

Belongs here: calling ``acquire.lua``, and mapping Redis's errors to ours. Does not belong
here: any arithmetic. Needs the extra ``redis``.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from embedding_pipeline.errors import ConfigurationError, MissingExtra, StateError, StateUnreachable
from embedding_pipeline.limits.base import LimitStore
from embedding_pipeline.limits.protocol import Answer, Ask, Terms
from embedding_pipeline.limits.state import State, from_json
from embedding_pipeline.remote import DISTRUSTED, comes_from, distrusts

if TYPE_CHECKING:
    from redis.asyncio import Redis

PREFIX: Final = "embedding_pipeline:limits:"
TIMEOUT_SECONDS: Final = 10
PARTS: Final = ("buckets.lua", "acquire.lua")


def script() -> str:
    """The text of ``buckets.lua`` and ``acquire.lua``: to Redis they are one script."""
    room = resources.files("embedding_pipeline.limits")
    return "\n".join(room.joinpath(name).read_text("utf-8") for name in PARTS)


class RedisLimits(LimitStore):
    """Limits in Redis.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.

    Raises:
        MissingExtra: redis-py is not installed.
        ConfigurationError: the URL is not one of Redis.
    """

    def __init__(self, url: str) -> None:
        try:
            from redis import asyncio, exceptions
        except ImportError as exc:
            raise MissingExtra("redis_url", "redis") from exc
        try:
            self._redis: Redis = asyncio.Redis.from_url(
                url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
            )
        except ValueError as exc:
            raise ConfigurationError(
                "redis_url is not a Redis URL; write it like redis://host:6379/0"
            ) from exc
        self._error = exceptions.RedisError
        self._refusals = (
            exceptions.AuthenticationError,
            exceptions.AuthorizationError,
            exceptions.NoPermissionError,
        )
        self._script = self._redis.register_script(script())
        self._where = urlsplit(url).hostname or urlsplit(url).path

    async def exchange(self, key: str, terms: Terms, ask: Ask) -> Answer:
        question = json.dumps({"terms": asdict(terms), "ask": asdict(ask)})
        try:
            reply = await self._script(keys=[PREFIX + key], args=[question, ""])
        except (self._error, OSError) as exc:
            raise self._failed(exc) from exc
        return answer_from(reply)

    async def states(self) -> Mapping[str, State]:
        try:
            names = sorted([name async for name in self._redis.scan_iter(match=f"{PREFIX}*")])
            values = await self._redis.mget(names) if names else []
        except (self._error, OSError) as exc:
            raise self._failed(exc) from exc
        pairs = zip(names, values, strict=True)
        return {n.decode().removeprefix(PREFIX): from_json(v) for n, v in pairs if v}

    async def aclose(self) -> None:
        await self._redis.aclose()

    def _failed(self, exc: Exception) -> ConfigurationError | StateError:
        """Unreachable is what may pass by itself: neither distrust nor a refused login does."""
        if distrusts(exc):
            return ConfigurationError(f"rate limits in Redis at {self._where}: {DISTRUSTED}")
        kind = StateError if comes_from(exc, self._refusals) else StateUnreachable
        return kind(
            f"rate limits in Redis at {self._where}: {type(exc).__name__}; check redis_url, "
            "and that the server runs and lets us write"
        )


def answer_from(reply: str | bytes) -> Answer:
    """The script's answer as a value."""
    tree = json.loads(reply)
    return Answer(
        tree["now"],
        tuple(tree["granted"]),
        tree["retry_after"],
        tuple((name, count, tokens) for name, count, tokens in tree["ahead"]),
        tuple(tree["rates"]),
        tuple(tree["known"]),
    )
