"""What is read out of a finished run's events, and how days are cut into runs."""

from datetime import date, timedelta

import dagster as dg
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.defs.launch import BackfillOutcome
from embedding_pipeline.defs.outcomes import RunOutcome, contiguous, outcome_of

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


DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")


@given(
    st.sets(st.sampled_from(DAYS)), st.sets(st.sampled_from(DAYS)), st.sets(st.sampled_from(DAYS))
)
def test_nothing_but_money_is_missing_where_every_day_left_is_out_of_budget(
    done: set[str], poor: set[str], broken: set[str]
) -> None:
    failed = (poor | broken) - done
    run = RunOutcome(
        "run",
        DAYS,
        tuple(sorted(done)),
        dict.fromkeys(failed, "why"),
        over_budget=frozenset(poor - broken - done),
    )
    outcome = BackfillOutcome("backfill", (run,), DAYS)
    left = set(DAYS) - done
    assert outcome.lacks_only_money == (bool(left) and left <= poor - broken)
    assert not (outcome.success and outcome.lacks_only_money)


def test_a_day_that_more_than_a_budget_stops_lacks_more_than_money() -> None:
    checks = [("2026-01-01", "within_budget"), ("2026-01-02", "within_budget")]
    events = [_stopped(*one) for one in [*checks, ("2026-01-02", "ledger_balances")]]
    outcome = outcome_of("run", events, DAYS[:2], [dg.AssetKey("cost_summary")])
    assert outcome.over_budget == {"2026-01-01"}
    assert set(outcome.failed) == set(DAYS[:2])


def _stopped(day: str, check: str) -> dg.DagsterEvent:
    found = dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey("cost_summary"),
        check_name=check,
        passed=False,
        metadata={},
        severity=dg.AssetCheckSeverity.ERROR,
        blocking=True,
        partition=day,
    )
    return dg.DagsterEvent(
        event_type_value=dg.DagsterEventType.ASSET_CHECK_EVALUATION.value,
        job_name="job",
        event_specific_data=found,
    )
