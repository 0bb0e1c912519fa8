"""Days that a provider left undone: made as far as they go, and finished by themselves."""

import json

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner

from embedding_pipeline.assembly.probing import PROJECT, answers
from embedding_pipeline.assembly.reading import read_vectors
from embedding_pipeline.assembly.stand_ins import stand_in_space
from embedding_pipeline.cli.root import root
from embedding_pipeline.cli.summary import deferred_on_days
from embedding_pipeline.defs.orphans import process_tag
from embedding_pipeline.ledger import queries
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.defs.books import figures, materializations, run_status
from embedding_pipeline_tests.defs.conftest import DAYS, DISTINCT, ROWS, Project
from embedding_pipeline_tests.defs.test_budgets import evaluation, figure, tick
from embedding_pipeline_tests.defs.test_model_change import died
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.server import KEY

ASSETS = ["embeddings", "cost_summary"]
POISON = "row 3 of"


@pytest.fixture(autouse=True)
def _defer(project: Project) -> None:
    path = project.root / "pipeline.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["on_outage"] = "defer"
    path.write_text(yaml.safe_dump(settings))


def said(*arguments: str) -> str:
    """What the command prints."""
    result = CliRunner().invoke(root, arguments)
    assert not result.exception or isinstance(result.exception, SystemExit)
    return result.stdout


async def _spent_on_probes(project: Project) -> int:
    with Store(project.settings.state, FakeClock()) as store:
        sums = await store.read(queries.sums)
    return sum(entry.tokens for entry in sums if entry.account.project == PROJECT)


def test_the_run_ends_well_and_the_sensor_finishes_the_day_once_the_provider_is_back(
    project: Project, instance: dg.DagsterInstance
) -> None:
    first, second = DAYS[:2]
    project.api.fault(Fault("503_server_error"))
    result = project.run(instance, first)
    assert result.success, "an outage does not fail the run"
    assert (figure(result, "embedded"), figure(result, "deferred")) == (0, DISTINCT)
    accounted = evaluation(result, "every_chunk_accounted_for")
    assert (accounted.passed, accounted.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert f"{DISTINCT} of {ROWS} chunks are deferred" in (accounted.description or "")
    assert evaluation(result, "ledger_balances").passed
    assert read_vectors(first, first, settings=project.settings).num_rows == 0
    (row,) = json.loads(said("failed", "deferred", "--json"))
    assert (row["date"], row["reason"], row["chunks"]) == (first, "outage", DISTINCT)

    asked = project.api.books.requests
    still = tick(project, instance)
    assert still.run_requests == []
    assert "the provider is out still" in (still.skip_message or "")
    assert project.api.books.requests == asked + 1, "one probe a tick"

    project.api.fault(Fault("400_input", marker=POISON))
    (request,) = tick(project, instance).run_requests
    assert request.partition_key == first
    again = project.run(instance, first, assets=ASSETS)
    assert again.success
    assert (figure(again, "embedded"), figure(again, "quarantined")) == (DISTINCT - 1, 1)
    assert figure(again, "deferred") == 0
    assert project.api.books.billed_twice == 0
    asked = project.api.books.requests
    assert tick(project, instance).run_requests == [], "nothing is left"
    assert project.api.books.requests == asked, "and nothing is asked"

    project.api.fault()
    assert project.run(instance, second).success


@pytest.mark.anyio
async def test_a_probe_is_in_the_books(project: Project, instance: dg.DagsterInstance) -> None:
    assert await answers(project.settings)
    assert await answers(project.settings), "not from the cache"
    assert await _spent_on_probes(project) == project.api.books.tokens > 0
    project.api.fault(Fault("reset"))
    assert not await answers(project.settings)


def test_doctor_names_the_depth_of_the_queue(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.api.fault(Fault("503_server_error"))
    project.run(instance, DAYS[0], DAYS[1])
    assert f"deferred: {2 * DISTINCT} chunks of 2 days (outage {2 * DISTINCT})" in said("doctor")
    assert deferred_on_days(project.settings, DAYS) == 2 * DISTINCT
    assert deferred_on_days(project.settings, DAYS[1:]) == DISTINCT


def test_degraded_every_chunk_has_a_vector_for_those_who_ask_and_in_the_end_its_own(
    project: Project, instance: dg.DagsterInstance
) -> None:
    path = project.root / "pipeline.yaml"
    path.write_text(path.read_text().replace("on_outage: defer", "on_outage: degrade"))
    day = DAYS[0]
    project.api.fault(Fault("503_server_error"))
    result = project.run(instance, day)
    assert result.success
    assert (figure(result, "deferred"), figure(result, "stand_ins")) == (DISTINCT, DISTINCT)
    settings = project.settings
    assert read_vectors(day, day, settings=settings).num_rows == 0, "nobody gets them unasked"
    both = read_vectors(day, day, stand_ins=True, with_text=True, settings=settings)
    assert (both.vectors.num_rows, both.stand_ins.num_rows) == (0, ROWS)
    assert both.space == stand_in_space(settings)
    assert both.stand_ins.schema.field("vector").type.list_size == both.space.native_dimensions
    representatives = read_vectors(day, day, stand_ins=True, fan_out=False, settings=settings)
    assert representatives.stand_ins.num_rows == DISTINCT
    untouched = project.datasets.spaces()
    assert both.space not in untouched

    project.api.fault()
    (request,) = tick(project, instance).run_requests
    assert project.run(instance, str(request.partition_key), assets=ASSETS).success
    done = read_vectors(day, day, stand_ins=True, settings=settings)
    assert (done.vectors.num_rows, done.stand_ins.num_rows) == (ROWS, 0)
    assert project.datasets.stand_in_files(day) == []


def test_a_run_that_was_killed_is_ended_by_the_sensor_and_its_day_is_run_again(
    project: Project, instance: dg.DagsterInstance
) -> None:
    first, second = DAYS[:2]
    project.api.fault(Fault("503_server_error"))
    project.run(instance, first, second)
    project.api.fault()
    gone = died(project, instance, {"dagster/partition": first})
    job = project.defs().resolve_job_def("embedding_job")
    alive = instance.create_run_for_job(
        job, tags={"dagster/partition": second}, status=dg.DagsterRunStatus.STARTED
    )
    instance.add_run_tags(alive.run_id, process_tag(alive.run_id))
    (request,) = tick(project, instance).run_requests
    assert request.partition_key == first, "the other day is under way"
    assert run_status(instance, gone) == "FAILURE"
    assert run_status(instance, alive.run_id) == "STARTED"


def test_the_metadata_tell_of_the_limits_of_every_provider(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project.root / "pipeline.yaml"
    address = {"kind": "openai", "base_url": project.api.base_url}
    other = {"name": "second", **address, "api_key_env": "SECOND_KEY", "priority": 1}
    monkeypatch.setenv("SECOND_KEY", KEY)
    settings = {
        **yaml.safe_load(path.read_text()),
        "providers": [{"name": "first", **address}, other],
    }
    settings["requests"] = {"max_inputs": DISTINCT // 2}
    path.write_text(yaml.safe_dump(settings))
    project.api.limit(rpm=500, tpm=1_000_000)
    project.api.fault(
        Fault("429_requests", next=1, retry_after=0.01), Fault("503_server_error", next=1)
    )
    assert project.run(instance, DAYS[0]).success
    (event,) = materializations(instance, "embeddings")[DAYS[0]]
    told = event.metadata["rate_limits"].value
    assert isinstance(told, str)
    asked_first, asked_next = told.split("\n\n`")
    assert "/OPENAI_API_KEY/" in asked_first
    assert "/SECOND_KEY/" in asked_next
    assert "| docs | normal |" in asked_first
    assert "| docs | normal |" in asked_next, "it stood in for the first"
    assert figures(event)["rate_limit_429s"] == 1
    assert figures(event)["rate_limit_tokens_per_minute"] == 1_000_000
