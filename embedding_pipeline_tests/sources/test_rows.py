"""Values into rows: what is good, what is refused, and by which word."""

import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.records import Rejected, Row
from embedding_pipeline.sources.config import SourceFields
from embedding_pipeline.sources.rows import (
    CONTENT_LIMIT,
    Record,
    day_of,
    excerpt,
    plain,
    text_problem,
    to_row,
)

FIELDS = SourceFields()


def _row(**values: object) -> Row:
    row = to_row(Record("here:1", values), FIELDS)
    assert isinstance(row, Row), row
    return row


def _refused(**values: object) -> Rejected:
    rejected = to_row(Record("here:1", values), FIELDS)
    assert isinstance(rejected, Rejected), rejected
    return rejected


def test_a_full_row() -> None:
    row = _row(
        id="a", document_id="d", text=" t ", project="p", user="u", date="2025-03-18",
        ordinal=3, title="x", score=0.5,
    )  # fmt: skip
    assert row == Row(
        row_id="a",
        document_id="d",
        ordinal=3,
        text=" t ",
        project="p",
        user="u",
        metadata={"date": "2025-03-18", "title": "x", "score": 0.5},
        location="here:1",
    )


def test_what_is_missing_has_a_meaning() -> None:
    row = _row(id=7, text="t")
    assert (row.row_id, row.document_id, row.project, row.user, row.ordinal) == (
        "7", "7", "default", None, 0,
    )  # fmt: skip
    assert _row(id="a", text="t", project="", user="", document_id="").project == "default"
    assert _row(id="a", text="t", document_id=0).document_id == "0"


def test_columns_have_the_names_of_the_settings() -> None:
    fields = SourceFields(id="key", document_id="doc", text="body", project="source")
    record = Record("x", {"key": "k", "doc": "d", "body": "b", "source": "s", "id": 1, "text": 2})
    row = to_row(record, fields)
    assert isinstance(row, Row)
    assert (row.row_id, row.document_id, row.text, row.project) == ("k", "d", "b", "s")
    assert row.metadata == {"id": 1, "text": 2}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"text": "t"}, "no_id"),
        ({"id": "", "text": "t"}, "no_id"),
        ({"id": None, "text": "t"}, "no_id"),
        ({"id": True, "text": "t"}, "wrong_type"),
        ({"id": 1.5, "text": "t"}, "wrong_type"),
        ({"id": "\ud800", "text": "t"}, "not_utf8"),
        ({"id": "a\0", "text": "t"}, "nul_byte"),
        ({"id": "a"}, "no_text"),
        ({"id": "a", "text": None}, "no_text"),
        ({"id": "a", "text": ""}, "no_text"),
        ({"id": "a", "text": " \n\t\u3000\u2028"}, "no_text"),
        ({"id": "a", "text": 5}, "wrong_type"),
        ({"id": "a", "text": ["t"]}, "wrong_type"),
        ({"id": "a", "text": b"t"}, "wrong_type"),
        ({"id": "a", "text": "x\udfffy"}, "not_utf8"),
        ({"id": "a", "text": "x\0y"}, "nul_byte"),
        ({"id": "a", "text": "t", "project": 1.0}, "wrong_type"),
        ({"id": "a", "text": "t", "user": {}}, "wrong_type"),
        ({"id": "a", "text": "t", "document_id": []}, "wrong_type"),
    ],
)
def test_what_cannot_be_used_is_named(values: dict[str, object], reason: str) -> None:
    rejected = to_row(Record("here:1", values, b"raw"), FIELDS)
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.location, rejected.content) == (reason, "here:1", "raw")


def test_a_rejected_row_keeps_the_id_that_could_be_read() -> None:
    assert _refused(id=12, text="").row_id == "12"
    assert _refused(id=None, text="t").row_id == ""
    assert "'text': ''" in _refused(id=12, text="").content


@pytest.mark.parametrize(
    ("value", "ordinal"),
    [(0, 0), (5, 5), ("5", 5), (-1, None), (2**31, None), (True, None), ("x", None), ("²", None)],
)
def test_a_column_that_is_no_position_stays_metadata(value: object, ordinal: int | None) -> None:
    row = _row(id="a", text="t", ordinal=value)
    assert row.ordinal == (ordinal or 0)
    assert row.metadata == ({"ordinal": value} if ordinal is None else {})


def test_metadata_is_ready_for_json() -> None:
    row = _row(
        id="a",
        text="t",
        when=datetime(2025, 3, 18, 1, 2, tzinfo=UTC),
        day=date(2025, 3, 18),
        price=Decimal("1.10"),
        blob=b"\x00\xff",
        nan=math.nan,
        inf=math.inf,
        at=time(1, 2),
        nested={"a": [1, {"b": Decimal(2)}], 3: (date(2025, 1, 1),)},
        broken="\ud800",
    )
    assert json.loads(json.dumps(row.metadata, allow_nan=False)) == {
        "when": "2025-03-18T01:02:00+00:00",
        "day": "2025-03-18",
        "price": "1.10",
        "blob": "AP8=",
        "nan": None,
        "inf": None,
        "at": "01:02:00",
        "nested": {"a": [1, {"b": "2"}], "3": ["2025-01-01"]},
        "broken": "\ud800",
    }


def test_nesting_beyond_reason_costs_only_its_row() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    assert _refused(id="a", text="t", deep=deep).reason == "too_deep"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    values=st.dictionaries(st.sampled_from([*FIELDS.model_dump().values(), "other", "more"]), _JSON)
)
def test_any_object_becomes_a_row_or_a_reason(values: dict[str, object]) -> None:
    result = to_row(Record("x", values), FIELDS)
    if isinstance(result, Rejected):
        assert result.reason.isidentifier()
        result.content.encode()
        return
    for text in (result.row_id, result.document_id, result.text, result.project):
        assert text.encode()
        assert "\0" not in text
    assert text_problem(result.text) is None
    json.dumps(result.metadata, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "day"),
    [
        ("2025-03-18", date(2025, 3, 18)),
        (" 2025-03-18\n", date(2025, 3, 18)),
        ("2025-03-18T23:30:00", date(2025, 3, 18)),
        ("2025-03-18 23:30:00Z", date(2025, 3, 18)),
        ("2025-03-18T23:30:00-02:00", date(2025, 3, 19)),
        ("2025-03-18T00:30:00+02:00", date(2025, 3, 17)),
        (date(2025, 3, 18), date(2025, 3, 18)),
        (datetime(2025, 3, 18, 23, tzinfo=timezone(timedelta(hours=-5))), date(2025, 3, 19)),
        (datetime(2025, 3, 18, 23), date(2025, 3, 18)),  # noqa: DTZ001
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), None),
        ("20250318", None),
        ("2025-W12-2", None),
        ("2025-3-18", None),
        ("2025-02-30", None),
        ("18.03.2025", None),
        ("", None),
        (None, None),
        (1742256000, None),
        (True, None),
    ],
)
def test_the_day_a_value_names(value: object, day: date | None) -> None:
    assert day_of(value) == day


@given(st.text() | st.binary() | st.integers() | st.dates() | st.datetimes())
def test_any_value_names_a_day_or_none(value: object) -> None:
    day = day_of(value)
    assert day is None or type(day) is date


@given(st.text() | st.binary())
def test_an_excerpt_is_short_and_encodable(content: str | bytes) -> None:
    assert len(excerpt(content).encode()) <= 4 * CONTENT_LIMIT
    assert excerpt("ö" * 5000) == "ö" * CONTENT_LIMIT


@given(_JSON)
def test_plain_is_idempotent(value: object) -> None:
    assert plain(plain(value)) == plain(value)
