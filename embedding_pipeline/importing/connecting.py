"""Foreign Redis servers: read, never written.

Belongs here: connecting, and turning Redis's errors into ours. Does not belong here: what
stands in one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from embedding_pipeline.errors import MissingExtra, SourceError
from embedding_pipeline.importing.found import unreachable

TIMEOUT_SECONDS: Final = 30.0


@contextmanager
def redis_reading(url: str) -> Iterator[Any]:
    """A client whose every failure is a SourceError.

    Raises:
        MissingExtra: redis-py is not installed.
        SourceError: the server cannot be reached, or refuses.
    """
    try:
        from redis import Redis
        from redis.exceptions import RedisError
    except ImportError as exc:
        raise MissingExtra("reading a Redis", "redis") from exc
    try:
        client = Redis.from_url(
            url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS
        )
    except ValueError as exc:
        raise SourceError("not a Redis URL; write it like redis://host:6379/0") from exc
    try:
        with client:
            yield client
    except (RedisError, OSError) as exc:
        raise unreachable("the Redis", exc) from exc
