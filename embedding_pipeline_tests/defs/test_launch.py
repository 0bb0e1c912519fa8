"""Runs from our own command line: cut into runs, going on after a failure, ending when told."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import dagster as dg
import pytest

from embedding_pipeline.defs.days import select_days
from embedding_pipeline.defs.instance import dagster_home, open_instance
from embedding_pipeline.defs.launch import BACKFILL_TAG, backfill
from embedding_pipeline.defs.orphans import end_orphans, process_tag
from embedding_pipeline.defs.outcomes import RunOutcome
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.service.work import Progress
from embedding_pipeline_tests.defs.books import check_statuses, materializations, run_status
from embedding_pipeline_tests.defs.conftest import DAYS, DISTINCT, Project
from embedding_pipeline_tests.fake_openai.faults import Fault


def test_a_range_is_cut_into_runs_of_neighbours_and_all_of_it_is_made(
    project: Project, instance: dg.DagsterInstance
) -> None:
    told: list[RunOutcome] = []
    seen: list[Progress] = []
    outcome = backfill(
        project.settings,
        DAYS[0],
        DAYS[3],
        partitions_per_run=3,
        on_run=told.append,
        on_progress=seen.append,
        home=project.home,
    )
    assert outcome.success
    assert [run.partitions for run in outcome.runs] == [DAYS[:3], DAYS[3:]]
    assert tuple(told) == outcome.runs
    assert outcome.finished == DAYS
    assert seen[-1].done == seen[-1].total == DISTINCT
    assert sorted(materializations(instance, "cost_summary")) == list(DAYS)
    runs = instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: outcome.backfill_id}))
    assert {run.run_id for run in runs} == {run.run_id for run in outcome.runs}
    assert all(run.job_name == "embedding_job" for run in runs)
    assert not any("dagster/backfill" in run.tags for run in runs)


def test_one_bad_day_takes_no_other_day_down_with_it(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.break_day(DAYS[1])
    outcome = backfill(project.settings, DAYS[0], DAYS[3], home=project.home)
    assert not outcome.success
    assert [run.partitions for run in outcome.runs] == [DAYS, DAYS[:1], DAYS[2:]]
    assert outcome.runs[0].held_back == (DAYS[0], *DAYS[2:])
    assert list(outcome.failed) == [DAYS[1]]
    assert "\n" not in outcome.failed[DAYS[1]]
    assert outcome.finished == (DAYS[0], *DAYS[2:])
    assert sorted(materializations(instance, "cost_summary")) == [DAYS[0], *DAYS[2:]]
    assert project.api.books.billed_twice == 0


def test_a_failure_that_is_no_days_own_fails_the_run_and_the_next_run_is_tried(
    project: Project,
) -> None:
    project.api.fault(Fault("401_key"))
    outcome = backfill(project.settings, DAYS[0], DAYS[1], partitions_per_run=1, home=project.home)
    assert [run.success for run in outcome.runs] == [False, False]
    assert set(outcome.failed) == set(DAYS[:2])


def test_only_the_assets_that_were_asked_for_are_made(
    project: Project, instance: dg.DagsterInstance
) -> None:
    outcome = backfill(project.settings, DAYS[0], DAYS[0], assets=["raw_chunks"], home=project.home)
    assert outcome.success
    assert materializations(instance, "deduped_chunks") == {}


def test_checks_are_judged_in_our_own_runs_as_well(
    project: Project, instance: dg.DagsterInstance
) -> None:
    backfill(project.settings, DAYS[0], DAYS[1], home=project.home)
    statuses = check_statuses(instance, "embeddings", "every_chunk_accounted_for")
    assert statuses == {day: ["SUCCEEDED"] for day in DAYS[:2]}


@pytest.mark.parametrize(
    ("start", "end", "says"),
    [
        ("2025-12-31", DAYS[0], "2025-12-31 is before the first partition, 2026-01-01"),
        (DAYS[0], "2999-01-01", "2999-01-01 is not over yet"),
        (DAYS[1], DAYS[0], "swap them"),
    ],
)
def test_days_that_do_not_exist_are_refused_before_anything_runs(
    project: Project, instance: dg.DagsterInstance, start: str, end: str, says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        backfill(project.settings, start, end, home=project.home)
    assert instance.get_runs() == []


def test_a_pipeline_that_starts_today_has_no_day_yet() -> None:
    with pytest.raises(ConfigurationError, match=r"start_date"):
        select_days([], "2026-01-01", "2026-01-01")


def test_an_asset_that_does_not_exist_is_refused(project: Project) -> None:
    with pytest.raises(ConfigurationError, match=r"embedings.*choose from: raw_chunks"):
        backfill(project.settings, DAYS[0], DAYS[0], assets=["embedings"], home=project.home)


INTERRUPTED = """
import sys
from pathlib import Path
from embedding_pipeline.defs.launch import backfill
from embedding_pipeline.settings.loading import load_settings
print("ready", flush=True)
outcome = backfill(load_settings(), sys.argv[1], sys.argv[2], partitions_per_run=1,
                   home=Path(sys.argv[3]))
print("stopped" if outcome.stopped else "not stopped", len(outcome.runs), flush=True)
"""


@pytest.fixture
def interrupted(project: Project) -> Iterator[subprocess.Popen[str]]:
    """A backfill of one day after another in a process of its own, waiting for the API."""
    project.api.fault(Fault("hang", seconds=600))
    command = [sys.executable, "-c", INTERRUPTED, DAYS[0], DAYS[3], str(project.home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        wait_for_request(project)
        yield child
        child.kill()


def test_ctrl_c_ends_the_run_in_hand_and_the_backfill(
    project: Project, instance: dg.DagsterInstance, interrupted: subprocess.Popen[str]
) -> None:
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.stdout is not None
    assert interrupted.stdout.read().strip() == "stopped 1"
    assert interrupted.wait(600) == 0
    (run,) = instance.get_runs()
    assert run.is_finished
    assert sorted(materializations(instance, "deduped_chunks")) == [DAYS[0]]


def test_a_run_that_was_killed_is_not_in_progress_for_good(
    project: Project, instance: dg.DagsterInstance, interrupted: subprocess.Popen[str]
) -> None:
    interrupted.kill()
    interrupted.wait(600)
    (killed,) = instance.get_runs()
    assert not killed.is_finished
    project.api.fault()
    assert backfill(project.settings, DAYS[0], DAYS[0], home=project.home).success
    assert run_status(instance, killed.run_id) == "FAILURE"
    assert len(instance.get_runs()) == 2
    assert project.api.books.billed_twice == 0


def test_a_run_that_is_alive_is_left_alone(instance: dg.DagsterInstance) -> None:
    run_id = str(uuid4())
    instance.create_run_for_job(job, run_id=run_id, tags=process_tag(run_id))
    instance.create_run_for_job(job)
    assert end_orphans(instance) == []


@dg.job
def job() -> None:
    """Of nothing."""


def wait_for_request(project: Project) -> None:
    """Until the API has seen a request."""
    from time import monotonic, sleep

    deadline = monotonic() + 600
    while not project.api.books.requests:
        assert monotonic() < deadline, "no request came"
        sleep(0.05)


def test_the_home_is_what_the_environment_says_or_the_project_or_the_data(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    monkeypatch.chdir(bare)
    assert dagster_home(project.settings) == project.settings.data_path / "dagster"
    monkeypatch.chdir(project.root)
    assert dagster_home(project.settings) == project.root
    monkeypatch.setenv("DAGSTER_HOME", str(bare))
    assert dagster_home(project.settings) == bare


@pytest.mark.parametrize(("home", "says"), [("somewhere", "absolute"), ("/nowhere/at/all", "make")])
def test_a_home_that_cannot_be_used_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch, home: str, says: str
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", home)
    with pytest.raises(ConfigurationError, match=says), open_instance(project.settings):
        pass


def test_a_broken_dagster_yaml_is_one_sentence(project: Project, tmp_path: Path) -> None:
    home = tmp_path / "broken"
    home.mkdir()
    (home / "dagster.yaml").write_text("storage: {nonsense: true}\n")
    with (
        pytest.raises(ConfigurationError, match=r"dagster\.yaml"),
        open_instance(project.settings, home),
    ):
        pass
    assert [entry.name for entry in home.iterdir()] == ["dagster.yaml"]
