"""The arithmetic of one bucket, and what no trace of steps can break."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.limits import buckets
from embedding_pipeline.limits.buckets import MOST_TOKENS, SAFE_TOKENS, UNIT, Bucket
from embedding_pipeline.limits.lately import Lately
from embedding_pipeline.limits.protocol import Ask, News, Terms, Want
from embedding_pipeline.limits.sharing import exchange
from embedding_pipeline.limits.state import State, from_json, to_json
from embedding_pipeline_tests.fake_openai.buckets import Limits
from embedding_pipeline_tests.limits import traces

START = 1_790_000_000_000
SPAN = 12_000


def _bucket(limit: int = 1_000_000, **changes: int) -> Bucket:
    fresh = buckets.fresh(MOST_TOKENS, SAFE_TOKENS, limit, SPAN, START, 0)
    return replace(fresh, **changes)


def _refused(bucket: Bucket, granted_at: int, now: int, cost: int = 1) -> Bucket:
    return buckets.refused(bucket, cost, granted_at, now, buckets.EASE)


@given(
    st.integers(1, 5_000_000), st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 300_000)))
)
def test_in_any_stretch_no_more_goes_than_the_rate_and_the_capacity(
    limit: int, trace: list[tuple[int, int]]
) -> None:
    bucket, spent, now, largest = _bucket(limit), 0, 0, 0
    for elapsed, cost in trace:
        now += elapsed
        bucket = buckets.refill(bucket, elapsed, SPAN)
        if buckets.decide(bucket, cost, 0, SPAN).allowed:
            bucket = buckets.take(bucket, cost)
            spent, largest = spent + cost, max(largest, cost)
        assert spent * UNIT <= limit * (now + SPAN) + largest * UNIT


@given(st.integers(1, 5_000_000), st.integers(1, 300_000), st.integers(-(10**10), 10**10))
def test_the_wait_that_is_named_is_enough_and_not_too_long(
    limit: int, cost: int, level: int
) -> None:
    bucket = buckets.refill(_bucket(limit, level=level), 0, SPAN)
    decision = buckets.decide(bucket, cost, 2_000, SPAN)
    if decision.allowed:
        return
    wait = decision.retry_after
    assert wait > 0
    lifted = replace(bucket, level=bucket.level + wait * limit)
    before = replace(lifted, level=lifted.level - limit)
    assert buckets.decide(lifted, cost, 2_000, SPAN).allowed
    assert not buckets.decide(before, cost, 2_000, SPAN).allowed


@given(traces.terms, traces.traces)
def test_whatever_is_said_rates_stay_within_what_is_known(
    terms: Terms, trace: list[tuple[int, Ask]]
) -> None:
    now = START
    state: State | None = None
    for elapsed, ask in trace:
        now += elapsed
        state, answer = exchange(state, terms, ask, now)
        for bucket in (state.tokens, state.requests):
            assert 1 <= bucket.rate <= bucket.ceiling <= (bucket.set or bucket.most)
            assert bucket.level <= bucket.rate * terms.span
            assert abs(bucket.level) < 2**53
        assert len(answer.granted) == len(ask.wants) or answer.retry_after > 0
        assert all(0 < tag < 2**53 for tag in state.tags.values())
        assert from_json(to_json(state)) == state


def test_headers_lower_what_the_user_set_and_never_raise_it() -> None:
    low = buckets.learn(_bucket(1_000_000), 400_000, -1, 0, 1, 0)
    assert (low.rate, low.ceiling) == (400_000, 400_000)
    high = buckets.learn(low, 5_000_000, -1, 0, 1, 0)
    assert (high.rate, high.ceiling) == (1_000_000, 1_000_000)


@pytest.mark.parametrize("limit", [-1, 0, 10, 10**10])
def test_missing_and_absurd_headers_change_nothing(limit: int) -> None:
    bucket = _bucket(0)
    assert buckets.learn(bucket, limit, 5, 0, 50_000, 0) == bucket


def test_what_the_provider_has_left_bounds_what_we_think_we_have() -> None:
    bucket = buckets.learn(_bucket(1_000_000), 1_000_000, 5_000, 2_000, 1, 0)
    assert bucket.level == 3_000 * UNIT
    assert buckets.learn(_bucket(1_000_000), 1_000_000, 10**7, 0, 1, 0).level == 12_000 * 1_000_000


def test_a_provider_that_has_nothing_left_is_believed_and_one_that_does_not_say_is_not_owed() -> (
    None
):
    assert buckets.learn(_bucket(1_000_000), 1_000_000, 0, 0, 1, 0).level == 0
    unknown = _bucket(0)
    assert buckets.learn(replace(unknown, level=-5), 1_000_000, -1, 0, 1, 0).level == 0
    assert buckets.learn(replace(unknown, level=7), 1_000_000, -1, 0, 1, 0).level == 7


def test_what_was_learned_under_another_setting_is_forgotten() -> None:
    learned = replace(_refused(_bucket(1_000_000), START, START + 1), ramping=1)
    changed = buckets.limited_by(learned, 400_000)
    assert (changed.failed, changed.eased_at, changed.ramping, changed.since) == (0, 0, 0, 0)
    assert changed.rate == 400_000


def test_who_is_ahead_and_who_was_refused_is_counted() -> None:
    terms = Terms(tokens=60_000, requests=600, reserve=0)
    refusal = News("refused", tokens=7, granted_at=START, project="q", priority=2)
    state, _ = exchange(None, terms, Ask("a", (Want("p", 1000, 1, 10, 9_000),)), START)
    state, _ = exchange(state, terms, Ask("a", (Want("p", 1000, 1, 10, 9_000),)), START + 1)
    state, answer = exchange(
        state, terms, Ask("b", (Want("q", 1000, 2, 0, 10),), news=(refusal,)), START + 2
    )
    assert answer.ahead == (("p", 1, 9_000),)
    assert state.totals["q|2"] == (0, 0, 0, 1)
    assert state.refusals == (1, 0)
    ramp = replace(refusal, kind="ramp")
    state, _ = exchange(state, terms, Ask("b", news=(refusal, ramp)), START + 3)
    assert state.refusals == (2, 1)


def test_refusals_of_one_epoch_slow_down_once() -> None:
    once = _refused(_bucket(1_000_000), START, START + 500)
    assert once.rate == 700_000
    assert _refused(once, START + 400, START + 600).rate == 700_000
    assert _refused(once, START + 501, START + 600).rate < 700_000


def test_what_was_served_between_two_refusals_tells_the_limit() -> None:
    once = _refused(_bucket(1_000_000), START, START + 500)
    later = buckets.take(once, 100_000 + 5_000)
    twice = _refused(later, START + 12_000, START + 12_500, cost=5_000)
    found = (100_000 + 5_000) * 60 // 12
    assert (twice.failed, twice.rate) == (found, found * 90 // 100)
    assert (twice.since, twice.served) == (once.since, 100_000), "it goes on, and gets exact"


def test_refusals_far_apart_tell_nothing_of_the_limit() -> None:
    once = _refused(_bucket(1_000_000), START, START + 500)
    twice = _refused(buckets.take(once, 5_000), START + 60_000, START + 60_501, cost=5_000)
    assert twice.rate == 490_000
    assert (twice.since, twice.served) == (START + 60_501, 0)


def test_a_refusal_where_no_limit_is_named_leaves_what_was_seen_sustained() -> None:
    free = replace(_bucket(0), rate=MOST_TOKENS)
    once = buckets.refused(free, 1, START, START + 1, buckets.EASE, 300_000)
    assert (once.rate, once.failed) == (300_000, MOST_TOKENS)
    told = buckets.refused(once, 1, START, START + 2, buckets.EASE, 900_000)
    assert told.rate == 900_000, "what others were served counts too, also a little later"
    slow = replace(once, rate=100_000)
    later = buckets.refused(slow, 1, START + 70_000, START + 70_001, buckets.EASE, 300_000)
    assert later.rate == 100_000, "a refusal raises nothing by itself"
    named = buckets.refused(_bucket(1_000_000), 1, START, START + 1, buckets.EASE, 900_000)
    assert named.rate == 700_000


@pytest.mark.parametrize(
    ("served", "believed"), [(187_998, False), (187_999, True), (219_999, True), (220_000, False)]
)
def test_a_limit_nobody_names_is_believed_when_it_is_found_again(
    served: int, believed: bool
) -> None:
    met = replace(_bucket(0), rate=5_000_000, found=1_000_000, since=START, eased_at=START)
    again = _refused(replace(met, served=served + 1), START + 11_000, START + 12_000)
    found = (served + 1) * 5
    assert (again.found, again.rate) == (found, found * 9 // 10)
    assert again.failed == (found if believed else MOST_TOKENS)
    pace = buckets.CREEP if believed else buckets.QUICK_BLIND
    near = replace(again, rate=found)
    assert buckets.grow(near, START + 13_000, True).rate == found + found * pace // 1_000


def test_what_is_kept_for_urgent_work_grows_with_the_rate() -> None:
    bucket = replace(_refused(_bucket(0), START, START + 1), level=2_000 * 12_000, rate=12_000)
    grown = buckets.grow(bucket, START + 1_001, True)
    assert grown.rate == 12_000 + SAFE_TOKENS // 4
    assert grown.level == 2_000 * grown.rate


@given(
    st.integers(1_000, 5_000_000),
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 1_000)), min_size=1, max_size=60),
    st.floats(0, 70),
)
def test_what_was_sustained_is_never_above_the_limit(
    limit: int, trace: list[tuple[float, int]], then: float
) -> None:
    server, lately, now = Limits(tpm=limit), Lately(), 0.0
    for pause, share in trace:
        now += pause
        cost = max(limit * share // 1_000, 1)
        if server.admit("m", cost, now)[0] is None:
            lately.add(now, cost)
        assert lately.sustained(now)[0] <= limit
    assert lately.sustained(now + then)[0] <= limit
    assert lately.sustained(now + 61) == (0, 0)


def test_a_storm_of_refusals_does_not_stop_everything() -> None:
    bucket = _bucket(1_000_000)
    for second in range(100):
        now = START + second * 1_000
        bucket = _refused(bucket, now, now + 1)
    assert bucket.rate == 50_000


def test_after_a_refusal_it_climbs_quickly_then_slowly() -> None:
    bucket = _refused(_bucket(1_000_000), START, START + 1)
    quick = buckets.grow(bucket, START + 5_001, True)
    assert quick.rate == 800_000
    assert buckets.grow(bucket, START + 5_001, False).rate == 700_000
    near = replace(bucket, rate=960_000)
    assert 960_000 < buckets.grow(near, START + 5_001, True).rate < 970_000
    far = replace(near, grown_at=START + 40_001)
    assert buckets.grow(far, START + 41_001, True).rate == 960_000 + 17_000


def test_where_no_limit_is_known_it_climbs_as_quickly_as_it_has_to() -> None:
    bucket = replace(_bucket(0), rate=MOST_TOKENS)
    bucket = _refused(bucket, START, START + 1)
    assert bucket.rate == SAFE_TOKENS
    for second in range(1, 36):
        bucket = buckets.grow(bucket, START + 1 + 1_000 * second, True)
    assert bucket.rate > 1_000_000


def test_the_ramp_above_a_million_is_half_in_a_quarter_of_an_hour() -> None:
    bucket = buckets.fresh(MOST_TOKENS, SAFE_TOKENS, 5_000_000, SPAN, START, 1)
    assert bucket.rate == 1_000_000
    for second in range(1, 901):
        bucket = buckets.grow(bucket, START + 1_000 * second, True)
    assert 1_490_000 <= bucket.rate <= 1_650_000


def test_what_a_dead_process_had_under_way_is_counted_for_ten_seconds() -> None:
    terms = Terms(tokens=60_000, requests=600, reserve=0)
    state, _ = exchange(None, terms, Ask("dead", out=(9_000, 3)), START)
    told = News("ok", tokens=1, limits=(60_000, 600), remaining=(9_000, 600))
    counted, _ = exchange(state, terms, Ask("a", news=(told,)), START + 9_999)
    assert counted.tokens.level == 0
    later, _ = exchange(state, terms, Ask("a", news=(told,)), START + 10_000)
    assert later.tokens.level == 9_000 * UNIT
    forgotten, _ = exchange(later, terms, Ask("a"), START + 60_000)
    assert forgotten.clients == {}


def test_what_a_dead_process_wanted_is_waited_for_five_seconds() -> None:
    terms = Terms(tokens=60_000, requests=600, reserve=0)
    wants = (Want("p", 1000, 2, 0, 9_000), Want("p", 1000, 2, 0, 9_000))
    state, first = exchange(None, terms, Ask("dead", wants), START)
    assert first.granted == (0,)
    mine = Ask("a", (Want("p", 1000, 2, 0, 5_000),))
    _, early = exchange(state, terms, mine, START + 4_999)
    assert early.granted == ()
    _, late = exchange(state, terms, mine, START + 5_000)
    assert late.granted == (0,)
