"""Fixtures of the limits room."""

from embedding_pipeline_tests.servers import (
    postgres_server,
    postgres_url,
    redis_server,
    redis_url,
)

__all__ = ["postgres_server", "postgres_url", "redis_server", "redis_url"]
