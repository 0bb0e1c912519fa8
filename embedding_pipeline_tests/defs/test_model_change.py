"""A change of the model, tick by tick, with Dagster's own instance and real runs."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import yaml
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

import embedding_pipeline
from embedding_pipeline.defs.compat import range_tags
from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline.defs.model_change import ASSETS, SENSOR
from embedding_pipeline.defs.orphans import PROCESS_TAG, claim, process_tag
from embedding_pipeline.defs.promotion import JOB
from embedding_pipeline_tests.defs.books import run_status
from embedding_pipeline_tests.defs.conftest import DAYS, DISTINCT, ROWS, Project

SMALL, LARGE = 1536, 3072


def ask_for(project: Project, model: str, **sections: Any) -> None:
    """Change the settings file as a person would."""
    file = project.root / "pipeline.yaml"
    content = yaml.safe_load(file.read_text())
    content["embedding"] = {"model": f"openai/text-embedding-3-{model}"}
    file.write_text(yaml.safe_dump({**content, **sections}))


def tick(project: Project, instance: dg.DagsterInstance) -> dg.SensorResult | str:
    """One evaluation, as the daemon would make it: requests, or why there are none."""
    defs = project.defs()
    sensor = next(it for it in defs.sensors or () if it.name == SENSOR)
    assert isinstance(sensor, dg.SensorDefinition)
    repository = defs.get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
        result = sensor(context)
    if isinstance(result, dg.SensorResult):
        return result
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


def active(instance: dg.DagsterInstance) -> list[PartitionBackfill]:
    """Backfills that the daemon has yet to end."""
    ends = (BulkActionStatus.REQUESTED, BulkActionStatus.CANCELING)
    return [one for one in instance.get_backfills() if one.status in ends]


def carry_out(project: Project, instance: dg.DagsterInstance, days: Sequence[str] = DAYS) -> None:
    """What the daemon does with the one backfill there is: a run, and its end."""
    (backfill,) = active(instance)
    assert backfill.status is BulkActionStatus.REQUESTED
    project.run(instance, *days, assets=ASSETS, tags=backfill.tags)
    end(instance, backfill, BulkActionStatus.COMPLETED_SUCCESS)


def end(instance: dg.DagsterInstance, backfill: PartitionBackfill, how: BulkActionStatus) -> None:
    instance.update_backfill(backfill.with_status(how))  # type: ignore[no-untyped-call]


def gate(project: Project, instance: dg.DagsterInstance, requested: dg.SensorResult | str) -> bool:
    """Carry out the run of the gate that a tick asked for; says whether it promoted."""
    assert isinstance(requested, dg.SensorResult), requested
    (request,) = requested.run_requests or ()
    assert request.job_name == JOB
    result = (
        project.defs().resolve_job_def(JOB).execute_in_process(instance=instance, tags=request.tags)
    )
    promoted = result.output_for_node("promote_space")
    assert isinstance(promoted, bool)
    return promoted


def served(days: Sequence[str] = DAYS) -> int:
    """The length of what readers get, with every chunk of the days there."""
    table = embedding_pipeline.read_vectors(days[0], days[-1])
    assert table.num_rows == len(days) * ROWS
    length = table.schema.field("vector").type.list_size
    assert isinstance(length, int)
    return length


def test_a_change_of_the_model_is_one_backfill_one_bill_and_one_switch(
    project: Project, instance: dg.DagsterInstance
) -> None:
    ask_for(project, "small")
    project.run(instance, *DAYS[:3])
    ask_for(project, "large")
    assert "launched backfill" in tick(project, instance)
    assert "is being built by backfill" in tick(project, instance)
    assert len(instance.get_backfills()) == 1
    project.run(instance, DAYS[3])  # a new day meanwhile: in both spaces
    assert served() == SMALL
    carry_out(project, instance, DAYS[:3])
    assert served() == SMALL
    assert gate(project, instance, tick(project, instance))
    assert served() == LARGE
    assert "are as the settings ask" in tick(project, instance)
    assert len(instance.get_backfills()) == 1
    books = project.api.books
    assert len(books.billed) == len(DAYS) * DISTINCT
    assert set(books.billed.values()) == {2}  # once by each model


def test_a_crash_after_the_attempt_was_recorded_launches_it_once(
    project: Project, instance: dg.DagsterInstance
) -> None:
    ask_for(project, "small")
    project.run(instance, *DAYS)
    ask_for(project, "large")
    tick(project, instance)
    (backfill,) = instance.get_backfills()
    instance.run_storage.wipe()  # as if the daemon had died before Dagster knew of it
    assert f"launched backfill {backfill.backfill_id}" in tick(project, instance)
    assert "is being built by backfill" in tick(project, instance)
    assert [one.backfill_id for one in instance.get_backfills()] == [backfill.backfill_id]


def test_a_second_change_cancels_the_first_and_its_runs_spend_nothing(
    project: Project, instance: dg.DagsterInstance
) -> None:
    ask_for(project, "small")
    project.run(instance, *DAYS)
    ask_for(project, "large")
    tick(project, instance)
    (first,) = active(instance)
    ask_for(project, "small")
    spent = project.api.books.cost_nano_usd
    assert "cancelled" in tick(project, instance)
    tick(project, instance)
    (cancelled,) = active(instance)
    assert cancelled.status is BulkActionStatus.CANCELING
    late = project.run(instance, DAYS[0], assets=ASSETS, tags=first.tags)
    assert not late.success
    assert project.api.books.cost_nano_usd == spent
    assert served() == SMALL


def test_days_that_failed_are_tried_again_alone_and_not_for_ever(
    project: Project, instance: dg.DagsterInstance
) -> None:
    ask_for(project, "small")
    project.run(instance, *DAYS)
    ask_for(project, "large")
    tick(project, instance)
    said: object = ""
    for _ in range(3):
        (backfill,) = active(instance)
        project.run(instance, DAYS[0], assets=ASSETS, tags=backfill.tags)
        end(instance, backfill, BulkActionStatus.COMPLETED_FAILED)
        said = tick(project, instance)
    assert "could not be made in 3 attempts" in str(said)
    assert "failed" in tick(project, instance)
    assert len(instance.get_backfills()) == 3
    assert served() == SMALL


def test_fewer_dimensions_and_back_need_no_run_and_no_request(
    project: Project, instance: dg.DagsterInstance
) -> None:
    ask_for(project, "small")
    project.run(instance, *DAYS)
    requests = project.api.books.requests
    file = project.root / "pipeline.yaml"
    full = file.read_text()
    file.write_text(full.replace("3-small", "3-small\n  dimensions: 512"))
    assert served() == 512
    assert "at 512" in tick(project, instance)
    assert "are as the settings ask" in tick(project, instance)
    project.run(instance, DAYS[0])
    assert served() == 512
    file.write_text(full)
    assert served() == 512
    assert "launched backfill" in tick(project, instance)
    carry_out(project, instance, DAYS[:1])
    assert "readers get" in tick(project, instance)
    assert served() == SMALL
    assert project.api.books.requests == requests


def test_rolled_back_is_rolled_back_until_a_person_goes_forward(
    project: Project, instance: dg.DagsterInstance
) -> None:
    import asyncio

    from embedding_pipeline.assembly.spaces import wanted
    from embedding_pipeline.assembly.switching import promote, rollback

    ask_for(project, "small")
    project.run(instance, *DAYS[:3])
    ask_for(project, "large")
    tick(project, instance)
    carry_out(project, instance, DAYS[:3])
    assert gate(project, instance, tick(project, instance))
    project.run(instance, DAYS[3])  # the way back is kept complete
    requests = project.api.books.requests
    asyncio.run(rollback(project.settings, "somebody"))
    assert served() == SMALL
    assert "was rolled back" in tick(project, instance)
    done = asyncio.run(promote(project.settings, wanted(project.settings), by="somebody"))
    assert done.promoted
    assert served() == LARGE
    assert project.api.books.requests == requests


def died(project: Project, instance: dg.DagsterInstance, tags: Mapping[str, str]) -> str:
    """A run that is started, says its process, and whose process is gone; its id."""
    job = project.defs().resolve_job_def("embedding_job")
    run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    here = process_tag(run.run_id)[PROCESS_TAG]
    dead = here.replace(str(os.getpid()), "999999999")
    instance.add_run_tags(run.run_id, {PROCESS_TAG: dead})
    return str(run.run_id)


def test_a_run_whose_process_died_is_retried_within_its_backfill(project: Project) -> None:
    ask_for(project, "small")
    home = project.root / "retrying"
    home.mkdir()
    retries = {
        "run_retries": yaml.safe_load((project.root / "dagster.yaml").read_text())["run_retries"]
    }
    (home / "dagster.yaml").write_text(yaml.safe_dump(retries))
    with open_instance(project.settings, home) as instance:
        project.run(instance, *DAYS[:2])
        gone = died(project, instance, range_tags(DAYS[0], DAYS[1]))
        tick(project, instance)
        failed = instance.get_run_by_id(gone)
        assert failed is not None
        assert failed.status is dg.DagsterRunStatus.FAILURE
        assert failed.tags["dagster/will_retry"] == "true"


def test_a_retry_has_the_tags_of_the_run_that_died_and_lives(
    project: Project, instance: dg.DagsterInstance
) -> None:
    ask_for(project, "small")
    project.run(instance, *DAYS[:2])
    first = instance.get_run_by_id(died(project, instance, range_tags(DAYS[0], DAYS[1])))
    assert first is not None
    job = project.defs().resolve_job_def("embedding_job")
    again = instance.create_run_for_job(job, tags=first.tags, status=dg.DagsterRunStatus.STARTING)
    tick(project, instance)
    assert run_status(instance, first.run_id) == "FAILURE"
    assert run_status(instance, again.run_id) == "STARTING"
    claim(instance, again)
    claimed = instance.get_run_by_id(again.run_id)
    assert claimed is not None
    assert claimed.tags[PROCESS_TAG] == process_tag(again.run_id)[PROCESS_TAG]
