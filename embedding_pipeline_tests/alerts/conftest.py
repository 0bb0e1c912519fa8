"""A store for every test, of every kind, closed at its end."""

from embedding_pipeline_tests.servers import postgres_server, postgres_url
from embedding_pipeline_tests.stores import store

__all__ = ["postgres_server", "postgres_url", "store"]
