"""The job ``plan``, launched as the UI launches it: figures as metadata, and nothing made."""

import dagster as dg

from embedding_pipeline_tests.defs.conftest import DAYS, DISTINCT, Project


def plan(
    project: Project, instance: dg.DagsterInstance, **config: str
) -> dg.ExecuteInProcessResult:
    job = project.defs().resolve_job_def("plan")
    return job.execute_in_process(
        instance=instance,
        run_config={"ops": {"plan_days": {"config": config}}},
        raise_on_error=False,
    )


def test_a_plan_is_the_run_s_metadata(project: Project, instance: dg.DagsterInstance) -> None:
    result = plan(project, instance, start=DAYS[0], end=DAYS[1])
    assert result.success
    (event,) = [e for e in result.all_node_events if e.event_type_value == "STEP_OUTPUT"]
    metadata = {key: entry.value for key, entry in event.step_output_data.metadata.items()}
    assert metadata["to_embed"] == 2 * DISTINCT
    assert isinstance(metadata["input_tokens"], int)
    assert metadata["cost_nano_usd"] == 20 * metadata["input_tokens"]
    assert result.output_for_node("plan_days") == metadata["cost_nano_usd"]
    assert f"| {DAYS[1]} | docs |" in str(metadata["by_day_and_project"])
    assert project.api.books.requests == 0
    assert not project.datasets.raw_chunks(DAYS[0]).exists()


def test_a_day_that_is_not_there_fails_in_one_sentence(
    project: Project, instance: dg.DagsterInstance
) -> None:
    result = plan(project, instance, start="2020-01-01", end=DAYS[0])
    (failure,) = [e for e in result.all_node_events if e.is_step_failure]
    said = failure.step_failure_data.user_failure_data
    assert said is not None
    assert "before the first partition" in (said.description or "")
