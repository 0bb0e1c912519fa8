"""Fixtures of this room."""

from embedding_pipeline_tests.fake_openai.fixtures import (
    fake_openai,
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.servers import postgres_server, postgres_url
from embedding_pipeline_tests.stores import store

__all__ = [
    "fake_openai",
    "fake_openai_process",
    "fake_openai_server",
    "postgres_server",
    "postgres_url",
    "store",
]
