"""Where a budget stands, in figures and in words."""

from datetime import UTC

import pytest

from embedding_pipeline.ledger.periods import ALWAYS, Period, Window
from embedding_pipeline.ledger.standing import Standing, dollars

DAY = Window(0, 86_400_000)


def standing(
    *, limit: int = 1000, spent: int = 0, reserved: int = 0, window: Window = DAY
) -> Standing:
    period: Period = "total" if window is ALWAYS else "day"
    return Standing("all", period, limit, spent, reserved, window, (0.5, 1.0), UTC)


@pytest.mark.parametrize(
    ("limit", "spent", "share"), [(1000, 0, 0.0), (1000, 250, 0.25), (0, 0, 1.0)]
)
def test_the_share_that_is_spent(limit: int, spent: int, share: float) -> None:
    assert standing(limit=limit, spent=spent).share == share


@pytest.mark.parametrize(
    ("spent", "reached"), [(499, ()), (500, (0.5,)), (999, (0.5,)), (1000, (0.5, 1.0))]
)
def test_alerts_are_due_from_their_share_on(spent: int, reached: tuple[float, ...]) -> None:
    assert standing(spent=spent).reached() == reached


def test_the_pace_so_far_is_what_the_period_will_cost() -> None:
    assert standing(spent=300).projected_nano(21_600_000) == 1200
    assert standing(spent=300, window=ALWAYS).projected_nano(21_600_000) is None


def test_what_is_free_and_what_is_not_spent() -> None:
    room = standing(spent=300, reserved=200).room
    assert (room.free_nano, room.unspent_nano) == (500, 700)
    over = standing(spent=1200).room
    assert (over.free_nano, over.unspent_nano) == (0, 0)


def test_words_say_where_it_stands_and_when_it_has_room_again() -> None:
    said = standing(limit=2 * 10**9, spent=1_500_000_000, reserved=250_000_000).words()
    assert said == (
        "budget all (day): $1.50 of $2.00 spent, $0.250000 reserved; "
        "it resets at 1970-01-02 00:00 UTC"
    )
    assert "reserved" not in standing().words()
    assert "it never resets" in standing(window=ALWAYS).words()


@pytest.mark.parametrize(
    ("nano", "said"),
    [
        (0, "$0.00"),
        (1000, "$0.000001"),
        (10**9 - 1000, "$0.999999"),
        (10**9, "$1.00"),
        (1234 * 10**9, "$1,234.00"),
    ],
)
def test_amounts_for_people(nano: int, said: str) -> None:
    assert dollars(nano) == said


def test_an_alert_is_named_by_budget_period_limit_and_share() -> None:
    assert standing().alert_key("0.5") == "budget|all|day|0|1000|0.5"
