"""A day that a budget has no room for: made as far as it goes, said, and finished by itself."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
import yaml

from embedding_pipeline.assembly.reading import read_vectors
from embedding_pipeline.defs.orphans import RECOVERY_TAG
from embedding_pipeline_tests.defs.conftest import DAYS, DISTINCT, ROWS, Project

TOKENS = 11
"""Of each row's text."""

PRICE = 20e-9


@pytest.fixture
def limit(project: Project) -> Callable[[float], None]:
    """Set the budget of project docs to the price of so many rows."""

    def change(rows: float) -> None:
        path = project.root / "pipeline.yaml"
        settings = yaml.safe_load(path.read_text())
        usd = rows * TOKENS * PRICE
        settings["budgets"] = [{"scope": "project:docs", "period": "total", "limit_usd": usd}]
        path.write_text(yaml.safe_dump(settings))

    return change


def evaluation(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    (found,) = [one for one in result.get_asset_check_evaluations() if one.check_name == name]
    return found


def figure(result: dg.ExecuteInProcessResult, key: str) -> Any:
    (made,) = result.asset_materializations_for_node("embeddings")
    return made.metadata[key].value


def tick(project: Project, instance: dg.DagsterInstance) -> Any:
    sensor = project.defs().resolve_sensor_def("recovery_sensor")
    context = dg.build_sensor_context(instance=instance, definitions=project.defs())
    return sensor.evaluate_tick(context)


def test_a_day_without_money_is_made_as_far_as_it_goes_and_finished_once_there_is_some(
    project: Project,
    instance: dg.DagsterInstance,
    limit: Callable[[float], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    day = DAYS[0]
    limit(6.5)
    result = project.run(instance, day)
    assert not result.success, "within_budget blocks"
    made = {
        event.asset_key.to_user_string()
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }
    assert {"embeddings", "cost_summary"} <= made
    assert (figure(result, "embedded"), figure(result, "deferred")) == (6, DISTINCT - 6)
    accounted = evaluation(result, "every_chunk_accounted_for")
    assert (accounted.passed, accounted.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert f"{DISTINCT - 6} of {ROWS} chunks are deferred" in (accounted.description or "")
    within = evaluation(result, "within_budget")
    assert (within.passed, within.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "budget project:docs (total)" in (within.description or "")
    assert evaluation(result, "ledger_balances").passed
    assert project.api.books.tokens <= 6.5 * TOKENS

    vectors = read_vectors(day, day, settings=project.settings)
    assert f"{DISTINCT - 6} chunks of {day} are deferred" in caplog.text
    assert 6 <= vectors.num_rows <= ROWS - (DISTINCT - 6)

    assert tick(project, instance).run_requests == [], "there is no room yet"
    limit(100)
    (request,) = tick(project, instance).run_requests
    assert request.partition_key == day
    again = project.run(instance, day, assets=["embeddings", "cost_summary"])
    assert again.success
    assert (figure(again, "embedded"), figure(again, "deferred")) == (DISTINCT - 6, 0)
    assert read_vectors(day, day, settings=project.settings).num_rows == ROWS
    assert tick(project, instance).run_requests == [], "nothing is left"


def test_a_launched_day_is_not_launched_twice(
    project: Project, instance: dg.DagsterInstance, limit: Callable[[float], None]
) -> None:
    limit(0)
    project.run(instance, DAYS[0])
    limit(100)
    (request,) = tick(project, instance).run_requests
    job = project.defs().resolve_job_def("embedding_job")
    run = instance.create_run_for_job(
        job, tags={**request.tags, "dagster/partition": DAYS[0]}, status=dg.DagsterRunStatus.STARTED
    )
    assert tick(project, instance).run_requests == []
    assert "a run is under way" in tick(project, instance).skip_message
    instance.report_run_failed(run)
    (again,) = tick(project, instance).run_requests
    assert again.tags[RECOVERY_TAG] == request.tags[RECOVERY_TAG]


def test_the_alert_sensor_says_what_it_lacks(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensor = project.defs().resolve_sensor_def("budget_alert_sensor")
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
    context = dg.build_sensor_context(instance=instance, definitions=project.defs())
    assert "webhook_url_env is not set" in (sensor.evaluate_tick(context).skip_message or "")
