"""A run that Dagster is to repeat and forgot: found, told again, and given up in the end."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.storage.dagster_run import RunRecord
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import should_retry
from dagster._daemon.auto_run_reexecution.event_log_consumer import EventLogConsumerDaemon

from embedding_pipeline.clock import SystemClock
from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline.defs.orphans import BUILD_TAG, RECOVERY_TAG, UNCLAIMED_SECONDS, end_orphans
from embedding_pipeline.defs.repeats import (
    MOST_TIMES,
    PATIENCE_SECONDS,
    Reminders,
    Waiting,
    decide,
    remind,
)
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.defs.conftest import Project


class Consumer(EventLogConsumerDaemon):
    """Dagster's own; where it would start a retry, it notes the run."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        super().__init__()
        self._instance = instance
        self.retried: list[str] = []
        with warnings.catch_warnings():  # it calls Logger.warn
            warnings.simplefilter("ignore", DeprecationWarning)
            self.look()  # it remembers from where on it reads

    @property
    def handle_updated_runs_fns(self) -> Sequence[Callable[..., Iterator[None]]]:
        return [self._note]

    def _note(self, _context: Any, records: Sequence[RunRecord], _logger: Any) -> Iterator[None]:
        runs = [record.dagster_run for record in records]
        self.retried += [run.run_id for run in runs if should_retry(run, self._instance)]
        yield from ()

    def look(self) -> None:
        """One of its rounds."""
        list(self.run_iteration(SimpleNamespace(instance=self._instance)))  # type: ignore[arg-type]


@pytest.fixture
def retrying(project: Project) -> Iterator[dg.DagsterInstance]:
    """An instance with the run retries of our dagster.yaml."""
    home = project.root / "retrying"
    home.mkdir()
    ours = yaml.safe_load(Path(project.root / "dagster.yaml").read_text())
    (home / "dagster.yaml").write_text(yaml.safe_dump({"run_retries": ours["run_retries"]}))
    with open_instance(project.settings, home) as opened:
        yield opened


def started(project: Project, instance: dg.DagsterInstance, tag: str = BUILD_TAG) -> dg.DagsterRun:
    """A run, of a build if nothing else is said, that is at work."""
    job = project.defs().resolve_job_def("embedding_job")
    run = instance.create_run_for_job(job, tags={tag: "key"})
    assert isinstance(run, dg.DagsterRun)
    instance.report_dagster_event(
        dg.DagsterEvent("PIPELINE_START", job.name, message="at work"), run.run_id
    )
    return run


def forget(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    consumer: Consumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run fails, and Dagster reads the event before the run is on record as failed."""
    storage = instance.run_storage
    record = storage.handle_run_event

    def late(*arguments: Any) -> None:
        consumer.look()
        record(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "handle_run_event", late)
        instance.report_run_failed(run, "its process is gone")


def later(seconds: float) -> FakeClock:
    return FakeClock(SystemClock().now() + seconds)


def test_a_run_that_dagster_forgot_is_repeated_when_it_is_told_again(
    project: Project, retrying: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, consumer = started(project, retrying), Consumer(retrying)
    forget(retrying, run, consumer, monkeypatch)
    consumer.look()
    assert consumer.retried == []
    failed = retrying.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.tags["dagster/will_retry"] == "true"
    assert remind(retrying, later(1)) == []
    (said,) = remind(retrying, later(PATIENCE_SECONDS + 1))
    assert "told again" in said
    consumer.look()
    assert consumer.retried == [run.run_id]
    assert remind(retrying, later(1)) == []


def test_a_run_that_is_never_repeated_is_given_up(
    project: Project, retrying: dg.DagsterInstance
) -> None:
    run = started(project, retrying)
    retrying.report_run_failed(run, "its process is gone")
    for _ in range(MOST_TIMES):
        assert "told again" in remind(retrying, later(PATIENCE_SECONDS + 1))[0]
    assert "given up" in remind(retrying, later(PATIENCE_SECONDS + 1))[0]
    assert remind(retrying, later(PATIENCE_SECONDS + 1)) == []
    failed = retrying.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.tags["dagster/will_retry"] == "false"


@pytest.mark.parametrize("tag", [BUILD_TAG, RECOVERY_TAG])
def test_a_run_of_ours_that_says_no_process_is_dead_after_a_while(
    project: Project, retrying: dg.DagsterInstance, tag: str
) -> None:
    run = started(project, retrying, tag)
    assert end_orphans(retrying, later(UNCLAIMED_SECONDS - 60)) == []
    assert end_orphans(retrying, later(UNCLAIMED_SECONDS + 60)) == [run.run_id]


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        (Waiting("a", PATIENCE_SECONDS - 1), Reminders()),
        (Waiting("a", PATIENCE_SECONDS), Reminders(tell=("a",))),
        (Waiting("a", PATIENCE_SECONDS, told=MOST_TIMES - 1), Reminders(tell=("a",))),
        (Waiting("a", PATIENCE_SECONDS, told=MOST_TIMES), Reminders(give_up=("a",))),
        (Waiting("a", PATIENCE_SECONDS, over=True), Reminders()),
    ],
)
def test_who_is_told_and_when(waiting: Waiting, expected: Reminders) -> None:
    assert decide([waiting]) == expected
