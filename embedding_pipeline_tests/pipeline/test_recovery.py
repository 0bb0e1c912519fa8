"""Deferred days are run again when there is room, and never in vain."""

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.ledger.affording import Room
from embedding_pipeline.ledger.deferred import Backlog
from embedding_pipeline.pipeline.recovery import ATTEMPTS, recover, wants_probe
from embedding_pipeline.records import Account, Priority

PRICE = 20


def backlog(
    day: int, project: str = "a", *, tokens: int = 100, least: int = 10, reason: str = "budget"
) -> Backlog:
    account = Account(project, "", f"2026-01-{day:02}")
    return Backlog("s", account, reason, Priority.NORMAL, 5, tokens, least, f"pass {day}", day)


def room(tokens: int, scope: str = "all") -> Room:
    return Room(scope, tokens * PRICE, tokens * PRICE)


def launched(*waiting: Backlog, rooms: list[Room], **more: object) -> list[str]:
    found = recover(waiting, rooms, PRICE, **more)  # type: ignore[arg-type]
    assert {one.account.partition for one in waiting} == {
        *found.waiting,
        *(launch.partition for launch in found.launches),
    }
    return [launch.partition[-2:] for launch in found.launches]


def test_nothing_is_launched_for_less_than_the_smallest_chunk() -> None:
    assert launched(backlog(1), rooms=[room(9)]) == []
    assert launched(backlog(1), rooms=[room(10)]) == ["01"]
    assert launched(backlog(1), rooms=[]) == ["01"], "the budget was taken away"


def test_the_oldest_days_first_and_as_many_as_there_is_room_for() -> None:
    days = [backlog(3), backlog(1), backlog(2)]
    assert launched(*days, rooms=[room(150)]) == ["01", "02"]
    assert launched(*days, rooms=[room(1000)], most=2) == ["01", "02"]


def test_one_project_without_room_does_not_hold_another_back() -> None:
    poor, rich = backlog(1, "poor"), backlog(2, "rich")
    rooms = [room(0, "project:poor"), room(500)]
    assert launched(poor, rich, rooms=rooms) == ["02"]
    assert launched(poor, backlog(1, "rich"), rooms=rooms) == ["01"], "one of a day is enough"


def test_a_day_that_is_run_already_is_not_launched_again() -> None:
    assert launched(backlog(1), backlog(2), rooms=[], busy={"2026-01-01"}) == ["02"]


def test_runs_that_get_nowhere_are_counted_and_end() -> None:
    (first,) = recover([backlog(1)], [], PRICE).launches
    (second,) = recover([backlog(1)], [], PRICE, tried={"pass 1": 1}).launches
    assert first.key != second.key
    assert launched(backlog(1), rooms=[], tried={"pass 1": ATTEMPTS}) == []


def test_other_reasons_hold_until_they_are_said_to_have_passed() -> None:
    assert launched(backlog(1, reason="outage"), rooms=[]) == []
    assert launched(backlog(1, reason="outage"), rooms=[room(0)], passed={"outage"}) == ["01"]


@given(
    days=st.lists(
        st.tuples(st.integers(1, 28), st.integers(1, 50), st.integers(0, 50)), max_size=9
    ),
    tokens=st.integers(0, 300),
)
def test_every_launch_gets_further(days: list[tuple[int, int, int]], tokens: int) -> None:
    """Whoever is launched finds room for a chunk, even after all who are launched before."""
    waiting = {day: backlog(day, tokens=least + more, least=least) for day, least, more in days}
    left = tokens
    for launch in recover(list(waiting.values()), [room(tokens)], PRICE).launches:
        one = waiting[int(launch.partition[-2:])]
        assert one.least_tokens <= left
        left = max(0, left - one.tokens)


def test_what_an_outage_left_waits_for_the_provider_and_not_for_money() -> None:
    out, poor = backlog(1, reason="outage"), backlog(2)
    assert launched(out, poor, rooms=[room(1000)]) == ["02"]
    assert launched(out, poor, rooms=[room(0)], passed={"outage"}) == ["01"]
    found = recover([out, poor], [room(0)], PRICE)
    assert found.waiting == {
        "2026-01-01": "the provider is out still",
        "2026-01-02": "there is no room in the budget yet",
    }


def test_a_probe_is_sent_only_where_its_answer_matters() -> None:
    out, poor = backlog(1, reason="outage"), backlog(2)
    assert not wants_probe([], ())
    assert not wants_probe([poor], ())
    assert wants_probe([poor, out], ())
    assert not wants_probe([poor, out], {"2026-01-01"})
