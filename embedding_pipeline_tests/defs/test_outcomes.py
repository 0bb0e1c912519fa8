"""What is read out of a finished run's events, and how days are cut into runs."""

from datetime import date, timedelta

import dagster as dg
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.defs.outcomes import contiguous, outcome_of

ALL_DAYS = [(date(2026, 1, 1) + timedelta(days=n)).isoformat() for n in range(60)]


@given(st.sets(st.sampled_from(ALL_DAYS)), st.integers(1, 20))
def test_runs_hold_every_day_once_in_order_without_a_gap(days: set[str], most: int) -> None:
    runs = contiguous(sorted(days, reverse=True), ALL_DAYS, most)
    assert [day for run in runs for day in run] == sorted(days)
    for run in runs:
        first = ALL_DAYS.index(run[0])
        assert list(run) == ALL_DAYS[first : first + len(run)]
        assert 1 <= len(run) <= most


@given(st.integers(0, 60), st.integers(1, 20))
def test_a_range_without_gaps_takes_as_few_runs_as_possible(length: int, most: int) -> None:
    assert len(contiguous(ALL_DAYS[:length], ALL_DAYS, most)) == -(-length // most)


def test_a_run_without_any_event_finished_nothing_and_says_so() -> None:
    outcome = outcome_of("run", [], ALL_DAYS[:2], [dg.AssetKey("embeddings")])
    assert not outcome.success
    assert outcome.finished == ()
    assert set(outcome.failed) == set(ALL_DAYS[:2])
    assert all("ended before" in why for why in outcome.failed.values())
