"""Who goes next: by priority, then by waiting, and nobody waits forever."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.records import Priority
from embedding_pipeline.service.lanes import AGEING_SECONDS, Lanes, Waiting, pick, rank
from embedding_pipeline_tests.service.harness import HandClock, turns

pytestmark = pytest.mark.anyio

URGENT, NORMAL, BULK = Priority.URGENT, Priority.NORMAL, Priority.BULK
waiting_callers = st.lists(
    st.tuples(st.sampled_from(Priority), st.floats(0, 1000)), min_size=1, max_size=20
).map(lambda rows: [Waiting(lane, since, n) for n, (lane, since) in enumerate(rows)])


@given(waiting_callers)
def test_who_is_picked_has_the_smallest_rank(callers: list[Waiting]) -> None:
    chosen = callers[pick(callers, 1000.0)]
    assert all(rank(chosen, 1000.0) <= rank(other, 1000.0) for other in callers)


@given(waiting_callers, st.floats(0, 100))
def test_waiting_together_changes_nothing_between_two(callers: list[Waiting], later: float) -> None:
    first, last = callers[0], callers[-1]
    lead = rank(first, 1000.0)[0] - rank(last, 1000.0)[0]
    assert rank(first, 1000.0 + later)[0] - rank(last, 1000.0 + later)[0] == pytest.approx(lead)


@pytest.mark.parametrize(
    ("callers", "first"),
    [
        ([(BULK, 0), (NORMAL, 0), (URGENT, 0)], 2),
        ([(NORMAL, 1), (NORMAL, 0)], 1),
        ([(NORMAL, 0), (NORMAL, 0)], 0),
        ([(BULK, 0), (URGENT, 2 * AGEING_SECONDS - 1)], 1),
        ([(BULK, 0), (URGENT, 2 * AGEING_SECONDS + 1)], 0),
        ([(NORMAL, 0), (URGENT, AGEING_SECONDS + 1)], 0),
    ],
)
def test_waiting_earns_a_step_of_priority(
    callers: list[tuple[Priority, float]], first: int
) -> None:
    line = [Waiting(lane, since, n) for n, (lane, since) in enumerate(callers)]
    assert pick(line, 100.0) == first


class Crowd:
    """Callers of one ``Lanes``, and who is inside."""

    def __init__(self, slots: int) -> None:
        self.clock = HandClock()
        self.lanes = Lanes(slots, self.clock)
        self.inside: list[str] = []
        self.served: list[str] = []
        self.most = 0
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._exits: dict[str, asyncio.Event] = {}

    def join(self, name: str, priority: Priority) -> None:
        self._exits[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._visit(name, priority))

    def leave(self, name: str) -> None:
        self._exits[name].set()

    async def _visit(self, name: str, priority: Priority) -> None:
        async with self.lanes.slot(priority):
            self.inside.append(name)
            self.served.append(name)
            self.most = max(self.most, len(self.inside))
            try:
                await self._exits[name].wait()
            finally:
                self.inside.remove(name)

    async def empty(self) -> None:
        """Everybody who is inside leaves, until nobody comes any more."""
        await turns()
        while self.inside:
            for name in self.inside:
                self.leave(name)
            await turns()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def test_urgent_callers_overtake_and_bulk_gets_its_turn_by_waiting() -> None:
    crowd = Crowd(1)
    crowd.join("first", BULK)
    await turns()
    crowd.join("bulk", BULK)
    for n in range(8):
        await turns()
        crowd.join(f"urgent {n}", URGENT)
        await turns()
        crowd.clock.advance(2.0)
        crowd.leave(crowd.inside[0])
    await crowd.empty()
    assert crowd.served.index("bulk") in range(5, 8), "after about ten seconds of waiting"
    assert len(crowd.served) == 10


async def test_a_cancelled_caller_passes_its_slot_on() -> None:
    crowd = Crowd(1)
    for name in ("a", "b", "c"):
        crowd.join(name, NORMAL)
    await turns()
    crowd.leave("a")  # hands the slot to b, who has not run yet …
    await asyncio.sleep(0)
    crowd.tasks["b"].cancel()  # … when it is cancelled
    await turns()
    assert crowd.inside == ["c"]
    await crowd.empty()


async def test_a_caller_cancelled_in_line_is_not_handed_a_slot() -> None:
    crowd = Crowd(1)
    for name in ("a", "b", "c"):
        crowd.join(name, NORMAL)
    await turns()
    crowd.leave("a")  # runs next, and finds b in line …
    crowd.tasks["b"].cancel()  # … who does not wait any more, but has not run since
    await turns()
    assert crowd.tasks["a"].exception() is None
    assert crowd.inside == ["c"]
    await crowd.empty()


async def test_one_slot_in_eight_is_for_urgent_callers_alone() -> None:
    crowd = Crowd(8)
    for n in range(8):
        crowd.join(f"bulk {n}", BULK)
    await turns()
    assert len(crowd.inside) == 7
    crowd.join("urgent", URGENT)
    await turns()
    assert "urgent" in crowd.inside
    await crowd.empty()
    assert len(crowd.served) == 9


steps = st.lists(
    st.tuples(st.sampled_from(["join", "leave", "cancel", "turn"]), st.integers(0, 30)),
    max_size=60,
)


@given(st.integers(1, 9), steps)
async def test_never_too_many_inside_and_everybody_is_served_or_gave_up(
    slots: int, todo: list[tuple[str, int]]
) -> None:
    crowd = Crowd(slots)
    for what, n in todo:
        names = list(crowd.tasks)
        if what == "join":
            crowd.join(str(len(names)), list(Priority)[n % 3])
        elif what == "turn":
            crowd.clock.advance(n)
            await asyncio.sleep(0)
        elif names:
            name = names[n % len(names)]
            crowd.leave(name) if what == "leave" else crowd.tasks[name].cancel()
    await crowd.empty()
    assert crowd.most <= slots
    for name, task in crowd.tasks.items():
        assert task.done()
        assert name in crowd.served or task.cancelled()
    for n in range(slots):  # no slot was lost on the way
        crowd.join(f"last {n}", URGENT)
    await turns()
    assert len(crowd.inside) == slots
    await crowd.empty()
