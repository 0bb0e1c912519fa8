"""Settings of a source: combinations that cannot be meant are refused with a remedy."""

import pytest
from pydantic import ValidationError

from embedding_pipeline.sources.config import SourceConfig, SourceFields


def test_the_demo_is_the_default() -> None:
    config = SourceConfig()
    assert config.kind == "demo"
    assert config.fields == SourceFields()
    assert config.fields.document_id == "document_id"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "files"}, "needs a path"),
        ({"kind": "files", "path": "  "}, "needs a path"),
        ({"path": "data/*.jsonl"}, "set kind: files"),
        ({"kind": "files", "path": "x", "query": "select 1"}, "need sql"),
        ({"kind": "demo", "url": "sqlite://"}, "need sql"),
        ({"kind": "carrier pigeon"}, "demo"),
        ({"glob": "x"}, "Extra inputs"),
        ({"fields": {"text": ""}}, "at least 1 character"),
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceConfig.model_validate(values)


QUERY = "select id, text, '10:30' as t, 1::int from x where d >= :start and d < :end"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"query": QUERY}, "needs url, or url_env"),
        ({"query": QUERY, "url": "sqlite://", "url_env": "X"}, "needs url, or url_env"),
        ({"query": QUERY, "url": "postgresql://me:geheim@host/x"}, "url holds a password"),
        ({"url": "sqlite://"}, "needs a query with :start and :end"),
        ({"query": "select id, text from x", "url": "sqlite://"}, "query with :start and :end"),
        ({"query": f"{QUERY} and p = :p", "url": "sqlite://"}, "no other parameter"),
    ],
)
def test_what_a_query_needs(values: dict[str, object], message: str) -> None:
    SourceConfig.model_validate({"kind": "sql", "query": QUERY, "url_env": "X"})
    with pytest.raises(ValidationError, match=message):
        SourceConfig.model_validate({"kind": "sql", **values})


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SourceFields().id = "key"  # type: ignore[misc]
