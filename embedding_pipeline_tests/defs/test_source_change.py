"""Files of past days that change, come late or go away: only those days are made again."""

import os
from collections.abc import Sequence

import dagster as dg

from embedding_pipeline.defs.source_change import SENSOR
from embedding_pipeline_tests.defs.conftest import DAYS, ROWS, Project


def tick(
    project: Project, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult:
    defs = project.defs()
    sensor = next(it for it in defs.sensors or () if it.name == SENSOR)
    assert isinstance(sensor, dg.SensorDefinition)
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def asked(result: dg.SensorResult) -> Sequence[str]:
    return [str(request.partition_key) for request in result.run_requests or ()]


def carry_out(project: Project, instance: dg.DagsterInstance, result: dg.SensorResult) -> None:
    for request in result.run_requests or ():
        assert project.run(instance, str(request.partition_key), tags=request.tags).success


def test_only_the_days_that_changed_are_asked_for_and_once(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.source(DAYS[2]).unlink()
    project.run(instance, *DAYS)
    assert asked(tick(project, instance)) == []
    late = '{"id": "late", "text": "came late", "project": "docs"}\n'
    project.source(DAYS[2]).write_text(late)
    lines = project.source(DAYS[0]).read_text().splitlines(keepends=True)
    project.source(DAYS[0]).write_text("".join(lines[1:]))
    first = tick(project, instance)
    assert asked(first) == [DAYS[0], DAYS[2]]
    keys = [request.run_key for request in first.run_requests or ()]
    assert [it.run_key for it in tick(project, instance).run_requests or ()] == keys
    carry_out(project, instance, first)
    assert asked(tick(project, instance)) == []
    assert project.datasets.raw_chunks(DAYS[0]).rows() == ROWS - 1
    assert project.datasets.raw_chunks(DAYS[2]).rows() == 1


def test_what_was_removed_is_removed(project: Project, instance: dg.DagsterInstance) -> None:
    project.run(instance, *DAYS[:2])
    project.source(DAYS[1]).unlink()
    result = tick(project, instance)
    assert asked(result) == [DAYS[1]]
    carry_out(project, instance, result)
    space = project.settings.model_spec.space
    assert project.datasets.embeddings(space, DAYS[1], 64).rows() == 0
    assert project.datasets.embeddings(space, DAYS[0], 64).rows() > 0


def test_a_file_that_was_only_touched_is_read_and_no_run_is_asked_for(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.run(instance, *DAYS[:2])
    os.utime(project.source(DAYS[0]), (1, 1))
    result = tick(project, instance)
    assert asked(result) == []
    assert DAYS[0] in (result.cursor or "")
    project.source(DAYS[0]).rename(project.source(DAYS[0]).with_suffix(".hidden"))
    project.source(DAYS[0]).with_suffix(".hidden").rename(project.source(DAYS[0]))
    assert asked(tick(project, instance, result.cursor)) == []


def test_a_day_that_keeps_failing_is_not_asked_for_for_ever(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.run(instance, *DAYS[:2])
    project.source(DAYS[0]).write_text("")
    for attempt in range(3):
        (request,) = tick(project, instance).run_requests or ()
        assert str(request.run_key).endswith(f":{attempt}")
        instance.create_run_for_job(
            project.defs().resolve_job_def("embedding_job"),
            tags={**request.tags, "dagster/partition": DAYS[0]},
            status=dg.DagsterRunStatus.FAILURE,
        )
    result = tick(project, instance)
    assert asked(result) == []
    assert "failed 3 times" in str(result.skip_reason)
