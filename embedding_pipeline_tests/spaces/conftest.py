"""Fixtures of this room."""

from embedding_pipeline_tests.servers import postgres_server, postgres_url
from embedding_pipeline_tests.stores import store

__all__ = ["postgres_server", "postgres_url", "store"]
