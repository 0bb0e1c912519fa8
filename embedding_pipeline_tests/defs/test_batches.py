"""Days that go through the Batch API: from the run that sends them to the run that has them."""

from collections.abc import Mapping

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from embedding_pipeline.assembly.reading import read_vectors
from embedding_pipeline.cli.summary import deferred_on_days
from embedding_pipeline.defs.batching import SENSOR
from embedding_pipeline_tests.defs.books import figures, materializations
from embedding_pipeline_tests.defs.conftest import DAYS, DISTINCT, ROWS, Project
from embedding_pipeline_tests.defs.test_model_change import active, carry_out, end
from embedding_pipeline_tests.fake_openai.faults import Fault

FOR_EVER = 1_000_000
"""Looks at a batch that is not done yet."""

PAIR = DAYS[:2]
POISON = "row 3 of"


@pytest.fixture
def batching(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The project with the Batch API on, whose batches end when they are told to."""
    monkeypatch.setenv("EMBEDDING_PIPELINE_BATCH_API", "on")
    project.api.batch_option(polls=FOR_EVER)
    return project


def tick(project: Project, instance: dg.DagsterInstance) -> str:
    """One evaluation of the sensor, as the daemon would make it."""
    defs = project.defs()
    sensor = next(it for it in defs.sensors or () if it.name == SENSOR)
    assert isinstance(sensor, dg.SensorDefinition)
    repository = defs.get_repository_def()
    with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
        result = sensor(context)
    assert isinstance(result, dg.SkipReason)
    return str(result.skip_message)


def summed(instance: dg.DagsterInstance, asset: str) -> Mapping[str, float]:
    """The newest figures of an asset, over all days."""
    sums: dict[str, float] = {}
    for events in materializations(instance, asset).values():
        for name, value in figures(events[0]).items():
            sums[name] = sums.get(name, 0) + value
    return sums


def test_days_wait_for_their_batch_and_are_made_once_when_it_is_in(
    batching: Project, instance: dg.DagsterInstance
) -> None:
    chunks = len(PAIR) * DISTINCT
    result = batching.run(instance, *PAIR)
    assert result.success
    assert deferred_on_days(batching.settings, PAIR) == chunks
    assert summed(instance, "embeddings")["deferred"] == chunks
    for one in result.get_asset_check_evaluations():
        waits = one.check_name == "every_chunk_accounted_for"
        assert (one.passed, one.severity == dg.AssetCheckSeverity.WARN) == (not waits, waits), one
    assert tick(batching, instance) == "1 batches are under way; 2 days wait"

    batching.run(instance, *PAIR, assets=["embeddings"])
    assert batching.api.batches["batches"] == 1, "what is in a batch is not sent again"

    batching.api.batch_option(polls=0)
    assert tick(batching, instance).startswith("launched backfill batch-")
    assert "2 days follow when" in tick(batching, instance)
    (first,) = active(instance)
    end(instance, first, BulkActionStatus.COMPLETED_FAILED)
    said = tick(batching, instance)
    assert first.backfill_id.removesuffix("1") + "2" in said, "the same days, once more"
    books = batching.api.books
    carry_out(batching, instance, PAIR)
    assert tick(batching, instance) == "no batch is under way"
    assert batching.api.books.requests == books.requests, "everything was there"
    assert batching.api.batches == {"batches": 1, "files": 0} | {
        "most_pending": batching.api.batches["most_pending"]
    }
    assert deferred_on_days(batching.settings, PAIR) == 0
    assert summed(instance, "embeddings")["cached"] == chunks
    assert summed(instance, "cost_summary")["cost_usd"] * 1e9 == pytest.approx(books.cost_nano_usd)
    assert books.cost_nano_usd == 10 * books.tokens, "half of what requests cost"
    table = read_vectors(*PAIR, settings=batching.settings)
    assert table.num_rows == len(PAIR) * ROWS


def test_what_a_batch_did_not_bring_is_sent_by_itself_and_judged(
    batching: Project, instance: dg.DagsterInstance
) -> None:
    batching.run(instance, *PAIR)
    batching.api.batch_option(polls=0, refuses=POISON)
    assert "launched" in tick(batching, instance)
    batching.api.fault(Fault("400_input", marker=POISON))
    carry_out(batching, instance, PAIR)
    figures_now = summed(instance, "embeddings")
    assert (figures_now["quarantined"], figures_now["deferred"]) == (len(PAIR), 0)
    assert batching.api.batches["batches"] == 1, "it does not go round in circles"
    assert tick(batching, instance) == "no batch is under way"
    assert batching.api.books.billed_twice == 0
