"""Whether a run on a Celery worker is alive: the verdict, and the account behind it."""

import sys
from pathlib import Path

import pytest
from dagster._core.launcher import WorkerStatus
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.defs.celery_launcher import (
    FRESH_SECONDS,
    GRACE_SECONDS,
    Roll,
    WatchedCeleryRunLauncher,
    judge,
)
from embedding_pipeline.defs.compat import configured_launcher
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline_tests.clock import FakeClock

STATES = st.sampled_from(["PENDING", "STARTED", "RETRY", "SUCCESS", "UNKNOWN"])
SECONDS = st.floats(0, 1e6)


@given(STATES, st.sampled_from([True, None]), SECONDS)
def test_a_run_that_a_worker_has_or_may_have_is_left_alone(
    state: str, held: bool | None, seconds: float
) -> None:
    assert judge(state, held, seconds).status is WorkerStatus.RUNNING


@given(STATES, SECONDS)
def test_a_run_nobody_has_is_dead_after_the_grace(state: str, seconds: float) -> None:
    dead = judge(state, False, seconds).status is WorkerStatus.FAILED
    assert dead == (seconds >= GRACE_SECONDS)


@given(st.sampled_from(["FAILURE", "REVOKED"]), st.sampled_from([True, False, None]), SECONDS)
def test_what_celery_calls_failed_is(state: str, held: bool | None, seconds: float) -> None:
    assert judge(state, held, seconds).status is WorkerStatus.FAILED


def test_the_time_a_task_is_missed_starts_anew_when_it_is_seen(clock: FakeClock) -> None:
    roll = Roll(clock)
    assert roll.due()
    roll.note(frozenset({"other"}))
    assert roll.look_up("one") == (False, 0.0)
    clock.advance(FRESH_SECONDS)
    assert not roll.due()
    clock.advance(40)
    roll.note(frozenset())
    assert roll.look_up("one") == (False, 40 + FRESH_SECONDS)
    roll.note(frozenset({"one"}))
    assert roll.look_up("one") == (True, 0.0)
    clock.advance(50)
    roll.note(frozenset())
    assert roll.look_up("one") == (False, 0.0)


def test_while_nobody_can_be_asked_no_task_is_missed(clock: FakeClock) -> None:
    roll = Roll(clock)
    roll.note(frozenset())
    roll.look_up("one")
    clock.advance(100)
    roll.note(None)
    assert roll.look_up("one") == (None, 0.0)
    clock.advance(100)
    roll.note(frozenset())
    assert roll.look_up("one") == (False, 0.0)


def test_workers_and_launcher_read_one_configuration(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_text((repository / "deploy" / "dagster.yaml").read_text())
    broker = "redis+socket:///nowhere/redis.sock"
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_BROKER_URL", broker)
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "postgresql+psycopg2://unused@/unused")
    launcher = configured_launcher()
    assert isinstance(launcher, WatchedCeleryRunLauncher)
    from embedding_pipeline.defs.celery_app import NEEDED_BY_RUNS, app, build_app, share

    assert {"execute_job", "resume_job"} <= set(app.tasks)
    assert app.conf.broker_url == launcher.celery.conf.broker_url == broker
    share(["there_is_no_such_extra"])
    assert set(NEEDED_BY_RUNS) <= sys.modules.keys(), "runs share what their worker has imported"
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with pytest.raises(ConfigurationError, match="deploy/dagster"):
        build_app()
