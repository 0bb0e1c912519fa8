"""Sums are of everything, and a projection says no more than its pace."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.pipeline.history.figures import (
    Overlap,
    Stored,
    cost_by,
    cost_by_day,
    project,
)
from embedding_pipeline_tests.pipeline.history.making import TODAY, history, saving, spent


def test_a_month_goes_on_at_the_pace_of_the_last_week() -> None:
    rows = [spent(n, 700) for n in range(1, 15)]
    found = project(history(*rows, spent(0, 100)))
    assert (found.pace, found.pace_days, found.days_left) == (700, 7, 10)
    assert found.spent == 14 * 700 + 100
    assert found.expected == found.spent + 600 + 10 * 700, "what is left of today, and ten days"


def test_a_young_history_has_a_short_pace_and_a_newborn_none() -> None:
    assert project(history(spent(2, 600))).pace == 300
    found = project(history(spent(0, 600)))
    assert (found.spent, found.expected) == (600, None)
    assert project(history()).expected is None


def test_today_above_the_pace_is_not_cut_down() -> None:
    found = project(history(spent(1, 100), spent(0, 900)))
    assert found.expected == 1000 + 10 * 100


def test_the_last_day_of_a_leap_february() -> None:
    rows = [spent(0, 50).__class__(date(2028, 2, 28), "p", "", "m", "api", True, 1, 1, 50, 0)]
    found = project(history(*rows, today=date(2028, 2, 29)))
    assert (found.days_left, found.expected) == (0, 50 + 50)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 10**12)), max_size=30))
def test_a_projection_is_never_below_what_is_spent(rows: list[tuple[int, int]]) -> None:
    found = project(history(*(spent(ago, cost) for ago, cost in rows)))
    assert found.expected is None or found.expected >= found.spent


def test_sums_by_a_property_are_in_order_and_complete() -> None:
    rows = [spent(1, 5, project="b"), spent(2, 7, project="a"), spent(3, 2, project="b")]
    assert list(cost_by(rows, lambda row: row.project).items()) == [("a", 7), ("b", 7)]
    days = cost_by_day(rows, TODAY - timedelta(days=3), TODAY)
    assert list(days.values()) == [2, 7, 5, 0]


def test_savings_and_storage_in_sum() -> None:
    found = history(
        spent(0, 10, unknown_nano_usd=3), savings=[saving("cache", 1, 4), saving("duplicate", 2, 5)]
    )
    assert (found.cost_nano_usd, found.unknown_nano_usd, found.saved_nano_usd) == (10, 3, 9)
    assert found.saved_by() == {"duplicate": 5, "cache": 4, "derived": 0, "batch_api": 0}
    assert Stored("s", 1536, 512, 10, 0).spared_bytes == 4 * 10 * 1024
    assert Overlap((), 0, 0, 0).share == 0
