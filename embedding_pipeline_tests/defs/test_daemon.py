"""A change of the model under Dagster's own daemon, which dies in the middle with its runs."""

import sqlite3
from contextlib import closing

import dagster as dg
import pytest
import yaml

from embedding_pipeline.assembly.spaces import read_state
from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline_tests.defs import watchful
from embedding_pipeline_tests.defs.conftest import DAYS, DISTINCT, Project
from embedding_pipeline_tests.defs.daemon import daemon, until
from embedding_pipeline_tests.defs.test_model_change import LARGE, SMALL, ask_for, served, tick
from embedding_pipeline_tests.fake_openai.faults import Fault


def in_flight(project: Project) -> int:
    """Texts that somebody had asked for, and not got."""
    with closing(sqlite3.connect(project.settings.data_path / "state.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM claims").fetchone()[0])


def executions(instance: dg.DagsterInstance) -> dict[str, set[str]]:
    """What became of the daemon's runs, by job; nothing while one is under way.

    How many there are is not told: on a busy machine Dagster repeats runs that start slowly.
    """
    runs = [run for run in instance.get_runs() if run.remote_job_origin is not None]
    found: dict[str, set[str]] = {run.job_name: set() for run in runs}
    for run in runs:
        found[run.job_name].add(run.status.value)
    return found if all(run.is_finished for run in runs) else {}


def promoted(project: Project) -> bool:
    active = read_state(project.settings).active
    return active is not None and active.dimensions == LARGE


def test_killed_with_its_runs_it_goes_on_with_one_backfill_and_one_bill(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DAGSTER_HOME", str(project.root))
    where = {"module_name": watchful.MODULE, "location_name": "embedding_pipeline"}
    (project.root / "workspace.yaml").write_text(
        yaml.safe_dump({"load_from": [{"python_module": where}]})
    )
    few = {"requests": {"max_inputs": DISTINCT}, "retry": {"max_attempts": 2}}
    ask_for(project, "small", **few)
    with open_instance(project.settings, project.root) as instance:
        project.run(instance, *DAYS)
        ask_for(project, "large", **few)
        assert "launched backfill" in tick(project, instance)  # a daemon's would be next minute
        project.api.fault(Fault("billed_hang", next=1, marker=DAYS[2]))
        with daemon(project.root):
            until(lambda: project.api.books.faults["billed_hang"] == 1, "the request")
        lost = in_flight(project)
        assert served() == SMALL
        with daemon(project.root):
            until(lambda: promoted(project), "the promotion")
            until(lambda: bool(executions(instance)), "the end of the gate's run")
        assert served() == LARGE
        assert len(instance.get_backfills()) == 1
        found = executions(instance)
        assert found.keys() == {"__ASSET_JOB", "space_promotion"}  # and of no other sensor
        assert found["__ASSET_JOB"] == {"FAILURE", "SUCCESS"}
    books = project.api.books
    assert len(books.billed) == len(DAYS) * DISTINCT
    assert min(books.billed.values()) >= 2  # once by each model; again what was in flight
    assert 0 < sum(books.billed.values()) - 2 * len(books.billed) <= lost
