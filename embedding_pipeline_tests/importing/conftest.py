"""A real Redis for every test that wants one."""

from embedding_pipeline_tests.servers import redis_server, redis_url

__all__ = ["redis_server", "redis_url"]
