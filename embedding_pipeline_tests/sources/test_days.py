"""Rows over days: each row belongs to exactly one day, dated or not."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.records import Rejected
from embedding_pipeline.sources.days import MAX_WAITING, rows_of_day
from embedding_pipeline.sources.rows import Record

MONDAY = date(2025, 3, 17)
TUESDAY = MONDAY + timedelta(1)
FILE_DAY = MONDAY + timedelta(2)
DAYS = [MONDAY + timedelta(offset) for offset in range(4)]

BAD = "bad"


def _rows(dates: list[object]) -> list[Record | Rejected]:
    return [
        Rejected(str(number), "", "bad_json", "")
        if value == BAD
        else Record(str(number), {"date": value})
        for number, value in enumerate(dates)
    ]


def _of(dates: list[object], day: date) -> list[tuple[int, str]]:
    rows = rows_of_day(_rows(dates), day, column="date", file_day=FILE_DAY)
    return [(int(row.location), row.reason if isinstance(row, Rejected) else "ok") for row in rows]


def test_undated_rows_go_with_the_row_before_them() -> None:
    dates = [MONDAY, BAD, "soon", TUESDAY, None]
    assert _of(dates, MONDAY) == [(0, "ok"), (1, "bad_json"), (2, "bad_date")]
    assert _of(dates, TUESDAY) == [(3, "ok"), (4, "bad_date")]


def test_at_the_start_they_go_with_the_first_dated_row() -> None:
    dates = [BAD, "soon", TUESDAY, MONDAY]
    assert _of(dates, TUESDAY) == [(0, "bad_json"), (1, "bad_date"), (2, "ok")]
    assert _of(dates, MONDAY) == [(3, "ok")]


def test_without_any_date_they_go_with_the_file() -> None:
    assert _of([BAD, None], FILE_DAY) == [(0, "bad_json"), (1, "bad_date")]
    assert _of([BAD, None], MONDAY) == []
    assert _of([], FILE_DAY) == []


def test_few_undated_rows_are_held() -> None:
    pulled = 0

    def many() -> object:
        nonlocal pulled
        for row in _rows([BAD] * (3 * MAX_WAITING)):
            pulled += 1
            yield row

    rows = rows_of_day(many(), FILE_DAY, column="date", file_day=FILE_DAY)  # type: ignore[arg-type]
    next(rows)
    assert pulled <= MAX_WAITING + 1
    assert len(list(rows)) == 3 * MAX_WAITING - 1


@given(
    st.lists(st.sampled_from([*DAYS, BAD, None]) | st.just(BAD).map(str), max_size=12),
    st.booleans(),
)
def test_every_row_belongs_to_exactly_one_day(dates: list[object], long: bool) -> None:
    dates = [BAD] * (MAX_WAITING + 2 if long else 0) + dates
    found = [number for day in DAYS for number, _ in _of(dates, day)]
    assert sorted(found) == list(range(len(dates)))
