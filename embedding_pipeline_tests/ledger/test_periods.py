"""Periods tile time, begin at local midnight, and follow the clocks when they change."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.ledger.periods import ALWAYS, Period, Window, window_of

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # its clocks change at midnight
    "Asia/Kathmandu",
    "Pacific/Apia",  # had no 30 December 2011
    "Australia/Lord_Howe",  # changes by half an hour
]
HOUR = 3_600_000


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@given(
    at=st.integers(0, 4_000_000_000_000),
    zone=st.sampled_from(ZONES),
    period=st.sampled_from(["day", "month"]),
)
def test_every_instant_is_in_one_period_and_the_next_begins_where_it_ends(
    at: int, zone: str, period: Period
) -> None:
    window = window_of(period, at, ZoneInfo(zone))
    assert window.holds(at)
    assert window.end_ms is not None
    assert window_of(period, window.start_ms, ZoneInfo(zone)) == window
    assert window_of(period, window.end_ms - 1, ZoneInfo(zone)) == window
    assert window_of(period, window.end_ms, ZoneInfo(zone)).start_ms == window.end_ms


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-06-01", 24)]
)
def test_a_day_has_the_hours_the_clocks_give_it(day: str, hours: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    window = window_of("day", ms(f"{day}T12:00", "Europe/Berlin"), zone)
    assert window.start_ms == ms(f"{day}T00:00", "Europe/Berlin")
    assert window.end_ms == window.start_ms + hours * HOUR


def test_the_month_turns_at_local_midnight() -> None:
    new_york = ZoneInfo("America/New_York")
    last = window_of("month", ms("2026-12-01T04:59:59"), new_york)  # UTC says December already
    assert (last.start_ms, last.end_ms) == (ms("2026-11-01T04:00"), ms("2026-12-01T05:00"))
    assert window_of("month", ms("2026-12-31T23:00"), UTC).end_ms == ms("2027-01-01T00:00")
    assert window_of("month", ms("2028-02-10T00:00"), UTC).end_ms == ms("2028-03-01T00:00")


def test_total_never_ends() -> None:
    assert window_of("total", 1, UTC) == ALWAYS
    assert ALWAYS.passed(5) is None
    assert Window(0, 100).passed(25) == 0.25
    assert Window(0, 100).passed(500) == 1.0


def test_a_window_is_over_in_proportion_to_its_own_length() -> None:
    window = Window(100, 300)
    assert [window.passed(at) for at in (50, 100, 150, 300)] == [0.0, 0.0, 0.25, 1.0]


def test_a_window_holds_its_first_instant_and_not_its_end() -> None:
    window = Window(100, 200)
    held = [at for at in (99, 100, 199, 200) if window.holds(at)]
    assert held == [100, 199]
    assert ALWAYS.holds(10**15)
