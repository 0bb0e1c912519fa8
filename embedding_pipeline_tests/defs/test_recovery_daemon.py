"""A day that an outage left undone, completed by Dagster's own daemon, which dies on the way."""

import asyncio

import dagster as dg
import pytest
import yaml

from embedding_pipeline.assembly.reading import read_vectors
from embedding_pipeline.assembly.watching import deferrals
from embedding_pipeline.cli.summary import deferred_on_days
from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline.defs.orphans import RECOVERY_TAG
from embedding_pipeline_tests.defs import watchful
from embedding_pipeline_tests.defs.conftest import DAYS, DISTINCT, ROWS, Project
from embedding_pipeline_tests.defs.daemon import daemon, until
from embedding_pipeline_tests.defs.test_daemon import in_flight
from embedding_pipeline_tests.fake_openai.faults import Fault

POISON = Fault("400_input", marker="row 3 of")
DEPLOYMENT = "west"


def prepare(project: Project) -> None:
    """Two providers; a daemon that never repeats a run by itself, and has one sensor on."""
    path = project.root / "pipeline.yaml"
    settings = yaml.safe_load(path.read_text())
    address = project.api.base_url
    azure = {"kind": "azure", "base_url": address.removesuffix("/v1"), "deployment": DEPLOYMENT}
    settings["providers"] = [
        {"name": "openai", "kind": "openai", "base_url": address},
        {"name": "azure", **azure, "priority": 1},
    ]
    settings["requests"] = {"max_inputs": DISTINCT // 2}
    settings["retry"] = {"max_attempts": 2, "max_seconds": 600}
    path.write_text(yaml.safe_dump({**settings, "on_outage": "defer"}))
    project.api.option(deployments={DEPLOYMENT: "text-embedding-3-small"})
    where = {"module_name": watchful.MODULE, "location_name": "embedding_pipeline"}
    (project.root / "workspace.yaml").write_text(
        yaml.safe_dump({"load_from": [{"python_module": where}]})
    )
    path = project.root / "dagster.yaml"
    dagster = yaml.safe_load(path.read_text())
    dagster["run_retries"]["enabled"] = False
    path.write_text(yaml.safe_dump(dagster))


def recoveries(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The runs that the sensor asked for."""
    return [run for run in instance.get_runs() if RECOVERY_TAG in run.tags]


def over(project: Project, instance: dg.DagsterInstance) -> bool:
    """Whether nothing waits, and nothing is under way."""
    waiting = asyncio.run(deferrals(project.settings))
    return not waiting and all(run.is_finished for run in recoveries(instance))


def test_the_daemon_finds_a_provider_back_is_killed_and_completes_the_day(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)
    monkeypatch.setenv("DAGSTER_HOME", str(project.root))
    monkeypatch.setenv(watchful.ONLY, "recovery_sensor")
    prepare(project)
    day, api = DAYS[0], project.api
    api.fault(Fault("503_server_error"))
    with open_instance(project.settings, project.root) as instance:
        result = project.run(instance, day)
        assert result.success, "both are out: the run ends well"
        assert deferred_on_days(project.settings, [day]) == DISTINCT
        asked = api.books.requests
        with daemon(project.root):
            until(lambda: api.books.requests > asked, "a probe")
            assert recoveries(instance) == [], "nothing is run in vain"
            api.fault(Fault("billed_hang", next=1, marker="row 7 of"), POISON)
            until(lambda: api.books.faults["billed_hang"] == 1, "a request of a run")
        lost = in_flight(project)
        (killed,) = recoveries(instance)
        assert killed.status is dg.DagsterRunStatus.STARTED, "nobody has noticed"
        with daemon(project.root):
            until(lambda: over(project, instance), "the end")
        ends = {run.run_id: run.status for run in recoveries(instance)}
        assert ends.pop(killed.run_id) is dg.DagsterRunStatus.FAILURE
        assert set(ends.values()) == {dg.DagsterRunStatus.SUCCESS}
    found = read_vectors(day, day, settings=project.settings).num_rows
    assert found == ROWS - 1, "all but the text that is refused"
    times = [api.books.times_billed(f"row {n} of {day}") for n in range(DISTINCT)]
    assert times.count(0) == 1, "the refused one"
    assert 0 < sum(times) - (DISTINCT - 1) <= lost, "twice only what was in flight"
