"""Every step of a model change, decided from what is there: rules, and what always holds."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.records import Space
from embedding_pipeline.spaces.choosing import first_active, served, writing
from embedding_pipeline.spaces.decision import (
    ASK_AGAIN_MS,
    IN_A_TICK,
    MAX_ATTEMPTS,
    AskPrice,
    Backfill,
    Idle,
    Launch,
    Move,
    OpenBuild,
    Price,
    RunGate,
    RunPlan,
    SwitchView,
    World,
    decide,
)
from embedding_pipeline.spaces.records import UNPRICED, Action, Build, BuildState, Event, Target

OLD = Target("openai/old", Space("openai", "old", "", 1536), 1536)
NEW = Target("openai/new", Space("openai", "new", "", 3072), 3072)
DAYS = ("2026-01-01", "2026-01-02")
CHEAP, DEAR = Price(10), Price(10**12)
NOW = 1_000_000_000


def build(state: BuildState = BuildState.BUILDING, **changes: object) -> Build:
    made = Build(1, "abc", NEW, state, NOW, NOW, 10, 0, "", "", {})
    return replace(made, **changes)  # type: ignore[arg-type]


def world(**changes: object) -> World:
    seen = World(NEW, OLD, None, None, len(DAYS), DAYS, 100, NOW)
    return replace(seen, **changes)  # type: ignore[arg-type]


def test_a_change_is_priced_before_anything_else() -> None:
    assert decide(world()) == AskPrice()
    opened = decide(world(price=CHEAP))
    assert isinstance(opened, OpenBuild)
    assert opened.state is BuildState.BUILDING


def test_what_is_dear_unknown_or_over_a_budget_waits() -> None:
    for price in (DEAR, Price(None), Price(10, ("all: nothing is left",))):
        opened = decide(world(price=price))
        assert isinstance(opened, OpenBuild)
        assert opened.state is BuildState.WAITING
        assert "spaces promote --approve" in opened.note
    assert isinstance(decide(world(build=build(BuildState.WAITING), price=CHEAP)), Idle)


def test_a_budget_that_has_room_again_lets_it_go_on() -> None:
    waits = build(BuildState.WAITING, changed_at_ms=NOW - ASK_AGAIN_MS)
    assert decide(world(build=waits)) == AskPrice()
    again = decide(world(build=waits, price=Price(10, ("no",))))
    assert isinstance(again, Move)
    assert again.state is BuildState.WAITING
    on = decide(world(build=waits, price=CHEAP))
    assert isinstance(on, Move)
    assert on.state is BuildState.BUILDING
    dear = replace(waits, cost_nano_usd=10**12)
    assert isinstance(decide(world(build=dear, price=CHEAP)), Idle)


def test_what_takes_longer_than_a_tick_is_priced_in_a_run() -> None:
    large = world(chunks=IN_A_TICK + 1)
    opened = decide(large)
    assert isinstance(opened, OpenBuild)
    assert opened.state is BuildState.PRICING
    pricing = replace(large, build=build(BuildState.PRICING))
    assert decide(pricing) == RunPlan()
    assert isinstance(decide(replace(pricing, plan_running=True)), Idle)
    gone = decide(replace(pricing, plan_runs=MAX_ATTEMPTS))
    assert isinstance(gone, Move)
    assert (gone.state, gone.alert) == (BuildState.FAILED, True)
    waits = replace(large, build=build(BuildState.WAITING, changed_at_ms=NOW - ASK_AGAIN_MS))
    assert decide(waits) == RunPlan()
    assert isinstance(decide(replace(waits, plan_running=True)), Idle)
    assert isinstance(decide(replace(waits, plan_runs=MAX_ATTEMPTS)), Idle)


def test_one_backfill_at_a_time_and_the_same_one_again_after_a_crash() -> None:
    assert decide(world(build=build())) == Launch(DAYS)
    recorded = build(attempts=1)
    assert decide(world(build=recorded)) == Launch(DAYS, again=True)
    assert isinstance(decide(world(build=recorded, backfill=Backfill.ACTIVE)), Idle)
    left = world(build=recorded, backfill=Backfill.ENDED, stale=DAYS[1:])
    assert decide(left) == Launch(DAYS[1:])


def test_attempts_end_and_a_hand_that_cancels_is_obeyed() -> None:
    tired = world(build=build(attempts=MAX_ATTEMPTS), backfill=Backfill.ENDED)
    given_up = decide(tired)
    assert isinstance(given_up, Move)
    assert (given_up.state, given_up.alert) == (BuildState.FAILED, True)
    stopped = decide(world(build=build(attempts=1), backfill=Backfill.CANCELLED))
    assert isinstance(stopped, Move)
    assert stopped.state is BuildState.FAILED


def test_complete_is_judged_once() -> None:
    whole = world(build=build(attempts=1), backfill=Backfill.ENDED, stale=())
    assert decide(whole) == RunGate()
    assert isinstance(decide(replace(whole, gate_running=True)), Idle)
    gone = decide(replace(whole, gate_runs=MAX_ATTEMPTS))
    assert isinstance(gone, Move)
    assert gone.state is BuildState.FAILED


def test_a_space_that_is_there_needs_no_price() -> None:
    opened = decide(world(stale=()))
    assert isinstance(opened, OpenBuild)
    assert opened.cost_nano_usd == 0


def test_another_length_of_the_same_space_is_a_switch_or_a_build_without_a_gate() -> None:
    short = replace(OLD, dimensions=512)
    assert decide(world(wanted=short, stale=())) == SwitchView()
    longer = world(wanted=OLD, active=short, stale=())
    assert decide(longer) == SwitchView()
    done = replace(longer, build=build(target=OLD, attempts=1), backfill=Backfill.ENDED)
    assert decide(done) == SwitchView()


def test_rolled_back_waits_for_a_person() -> None:
    last = Event(3, NOW, Action.ROLLBACK, OLD, "me", False, {"from": str(NEW.space)})
    assert isinstance(decide(world(last=last, price=CHEAP)), Idle)
    third = Target("openai/third", Space("openai", "third", "", 8), 8)
    assert isinstance(decide(world(last=last, wanted=third, price=CHEAP)), OpenBuild)


worlds = st.builds(
    world,
    wanted=st.sampled_from([OLD, NEW, replace(OLD, dimensions=512)]),
    build=st.none()
    | st.builds(
        build,
        st.sampled_from(BuildState),
        target=st.sampled_from([OLD, NEW]),
        attempts=st.integers(0, 5),
        cost_nano_usd=st.sampled_from([0, 10, 10**12]),
        changed_at_ms=st.sampled_from([NOW, 0]),
    ),
    days=st.sampled_from([0, 2]),
    stale=st.sampled_from([(), DAYS[:1], DAYS]),
    backfill=st.sampled_from(Backfill),
    gate_running=st.booleans(),
    gate_runs=st.integers(0, 4),
    chunks=st.sampled_from([0, IN_A_TICK + 1]),
    plan_running=st.booleans(),
    plan_runs=st.integers(0, 4),
    price=st.none() | st.sampled_from([CHEAP, DEAR, Price(None), Price(10, ("no",))]),
)


@given(worlds)
def test_what_always_holds(seen: World) -> None:
    step = decide(seen)
    if isinstance(step, Launch):  # never without a build that is allowed, for it alone
        assert seen.build is not None
        assert seen.build.state is BuildState.BUILDING
        assert seen.build.target == seen.wanted
        assert seen.backfill is not Backfill.ACTIVE
        assert step.days == seen.stale
        assert seen.build.attempts < MAX_ATTEMPTS or step.again
    if isinstance(step, AskPrice):  # only what a tick has time for
        assert seen.chunks <= IN_A_TICK
    if isinstance(step, RunPlan):  # of one build, that spends nothing, and one at a time
        assert seen.build is not None
        assert seen.build.state in UNPRICED
        assert not seen.plan_running
    if isinstance(step, RunGate | SwitchView):  # never with a day missing
        assert not seen.stale
    if isinstance(step, OpenBuild) and step.state is BuildState.BUILDING and seen.stale:
        assert seen.price is not None
        assert seen.price.cost_nano_usd is not None
        assert seen.price.cost_nano_usd <= seen.limit_nano_usd
        assert not seen.price.objections
    if seen.build is not None and seen.build.target != seen.wanted:
        assert isinstance(step, Move)
        assert step.state is BuildState.CANCELLED


@given(worlds, st.none() | st.just(replace(NEW, dimensions=8)))
def test_a_run_always_keeps_the_active_space_complete(seen: World, back: Target | None) -> None:
    plan = writing(seen.wanted, seen.active, seen.build, back=back)
    assert plan.main.space == seen.active.space
    spaces = [target.space for target in plan.targets]
    assert len(set(spaces)) == len(spaces)
    assert plan.main not in plan.optional
    if seen.build is not None and seen.build.state is BuildState.WAITING and back is None:
        assert NEW.space not in spaces or seen.wanted.space == NEW.space == seen.active.space


def test_a_run_of_a_build_that_is_over_writes_nothing() -> None:
    for state in (BuildState.CANCELLED, *UNPRICED, BuildState.FAILED):
        assert writing(NEW, OLD, build(state), tagged="abc").superseded
    assert writing(NEW, OLD, None, tagged="abc").superseded
    assert writing(NEW, OLD, build(), tagged="abc").targets == (NEW,)


def test_before_any_record_the_files_tell_what_is_active() -> None:
    assert first_active(NEW, {}) == NEW
    assert first_active(NEW, {OLD: 3}) == OLD
    assert first_active(NEW, {OLD: 3, NEW: 1}) == NEW


def test_a_smaller_view_of_the_active_space_is_served_at_once() -> None:
    short = replace(OLD, dimensions=512)
    assert served(short, OLD) == short
    assert served(OLD, short) == short
    assert served(NEW, OLD) == OLD
