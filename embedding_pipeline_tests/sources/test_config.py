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


def test_sql_may_be_written_down_before_it_is_available() -> None:
    config = SourceConfig(kind="sql", query="select 1", url="sqlite://")
    assert config.kind == "sql"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SourceFields().id = "key"  # type: ignore[misc]
