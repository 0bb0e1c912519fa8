"""When something fails inside a run: what stops, what stays, and what is said."""

from contextlib import AbstractAsyncContextManager

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy.exc import OperationalError

from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.defs.failures import AWAY_RETRIES, BLAMED
from embedding_pipeline.defs.orphans import claim
from embedding_pipeline.defs.resources import EmbedderResource
from embedding_pipeline.errors import StateInterrupted, StateUnreachable
from embedding_pipeline.spaces.records import Target
from embedding_pipeline.vectors.columns import matrix_of, vector_column
from embedding_pipeline_tests.defs.books import check_statuses, materializations, run_status
from embedding_pipeline_tests.defs.conftest import DAYS, Project
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.server import KEY


class BadDisk(EmbedderResource):
    """Between writing and checking, the vectors of one day become twice as long."""

    def __init__(self, project: Project, day: str) -> None:
        super().__init__(project.settings)
        self._project, self._day, self._opened = project, day, 0

    def open(
        self, run_id: str = "", target: Target | None = None
    ) -> AbstractAsyncContextManager[EmbeddingService]:
        self._opened += 1
        if self._opened == 2:
            self._damage()
        return super().open(run_id, target)

    def _damage(self) -> None:
        space = self._project.settings.model_spec.space
        file = self._project.datasets.embeddings(space, self._day, 64)
        table = pa.Table.from_batches(file.iter_batches())
        doubled = vector_column(matrix_of(table["vector"].combine_chunks()) * np.float32(2))
        damaged = table.set_column(4, table.schema.field("vector"), doubled)
        with file.vectors_writer(run_id="", fingerprint="") as writer:
            for batch in damaged.to_batches():
                writer.write(batch)


def failures(result: dg.ExecuteInProcessResult) -> dict[str, dg.DagsterEvent]:
    """The failed steps by name."""
    return {str(event.step_key): event for event in result.all_events if event.is_step_failure}


def test_a_failed_blocking_check_fails_the_run_and_stops_what_comes_after(
    project: Project, instance: dg.DagsterInstance
) -> None:
    overrides = {"openai": BadDisk(project, DAYS[1])}
    result = project.run(instance, *DAYS[:3], overrides=overrides)
    assert not result.success
    assert run_status(instance, result.run_id) == "FAILURE"
    norms = check_statuses(instance, "embeddings", "vectors_are_finite_unit_norm")
    assert norms == {DAYS[0]: ["SUCCEEDED"], DAYS[1]: ["FAILED"], DAYS[2]: ["SUCCEEDED"]}
    others = check_statuses(instance, "embeddings", "every_chunk_accounted_for")
    assert others == {day: ["SUCCEEDED"] for day in DAYS[:3]}
    assert sorted(materializations(instance, "embeddings")) == list(DAYS[:3])
    assert materializations(instance, "cost_summary") == {}
    assert set(failures(result)) == {"embeddings_checks"}


def test_a_failed_check_is_right_again_after_the_partition_was_made_again(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.run(instance, *DAYS[:2], overrides={"openai": BadDisk(project, DAYS[1])})
    assert project.run(instance, DAYS[1]).success
    norms = check_statuses(instance, "embeddings", "vectors_are_finite_unit_norm")
    assert norms == {DAYS[0]: ["SUCCEEDED"], DAYS[1]: ["SUCCEEDED", "FAILED"]}
    assert project.api.books.billed_twice == 0


def test_a_day_that_cannot_be_read_does_not_keep_the_others_from_being_read(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.break_day(DAYS[1])
    result = project.run(instance, *DAYS[:3])
    assert not result.success
    assert sorted(materializations(instance, "raw_chunks")) == [DAYS[0], DAYS[2]]
    assert materializations(instance, "embeddings") == {}
    said = failures(result)["raw_chunks"].step_failure_data.user_failure_data
    assert said is not None
    blamed = said.metadata[BLAMED]
    assert isinstance(blamed, dg.JsonMetadataValue)
    assert list(blamed.data or ()) == [DAYS[1]]
    assert (said.description or "").startswith(f"{DAYS[1]}: ")


def test_a_provider_that_gives_up_leaves_the_finished_days_materialized(
    project: Project, instance: dg.DagsterInstance
) -> None:
    project.run(instance, DAYS[0])
    project.api.fault(Fault("401_key"))
    result = project.run(instance, *DAYS[:3])
    assert not result.success
    events = materializations(instance, "embeddings")
    assert {day: len(found) for day, found in events.items()} == {DAYS[0]: 2}
    salvaged, whole = (event.tags or {} for event in events[DAYS[0]])
    assert salvaged.items() <= whole.items()
    assert "embedding_pipeline/space" in salvaged
    said = failures(result)["embeddings"].step_failure_data.user_failure_data
    assert said is not None
    assert said.description
    assert KEY not in said.description


def test_a_missing_key_is_one_sentence(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    result = project.run(instance, DAYS[0])
    said = failures(result)["embeddings"].step_failure_data.user_failure_data
    assert said is not None
    assert "OPENAI_API_KEY" in (said.description or "")
    assert materializations(instance, "deduped_chunks").keys() == {DAYS[0]}


def test_a_check_of_what_was_never_made_fails_and_says_so(
    project: Project, instance: dg.DagsterInstance
) -> None:
    job = project.defs().resolve_implicit_global_asset_job_def()
    subset = job.get_subset(
        asset_selection=set(),
        asset_check_selection={
            dg.AssetCheckKey(dg.AssetKey("embeddings"), "single_space"),
        },
    )
    result = subset.execute_in_process(
        instance=instance, partition_key=DAYS[0], raise_on_error=False
    )
    (evaluation,) = result.get_asset_check_evaluations()
    assert not evaluation.passed
    assert DAYS[0] in (evaluation.description or "")
    assert evaluation.partition == DAYS[0]


STATE_AWAY = StateUnreachable("the server is away")
STATE_LEFT = StateInterrupted("the server is away")
AWAY = OperationalError("SELECT 1", {}, Exception("the server is away"))


class Restarted(EmbedderResource):
    """The server of state and history is away each time it is asked for, until it is back."""

    def __init__(self, project: Project, times: int) -> None:
        super().__init__(project.settings)
        self._left = times

    def open(
        self, run_id: str = "", target: Target | None = None
    ) -> AbstractAsyncContextManager[EmbeddingService]:
        if self._left:
            self._left -= 1
            raise (AWAY, STATE_AWAY, STATE_LEFT)[self._left % 3]
        return super().open(run_id, target)


@pytest.mark.parametrize(("times", "fine"), [(2, True), (AWAY_RETRIES + 1, False)])
def test_a_step_begins_anew_when_the_state_is_away_but_not_for_ever(
    project: Project,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
    fine: bool,
) -> None:
    monkeypatch.setattr("embedding_pipeline.defs.failures.AWAY_SECONDS", 0)
    overrides = {"openai": Restarted(project, times)}
    result = project.run(instance, DAYS[0], overrides=overrides)
    assert result.success == fine
    again = [event for event in result.all_events if event.is_step_restarted]
    assert len(again) == min(times, AWAY_RETRIES)
    if not fine:
        (failure,) = failures(result).values()
        assert "the server is away" in str(failure.step_failure_data)


def test_a_step_begins_anew_when_the_history_is_away_as_it_says_where_it_is(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedding_pipeline.defs.failures.AWAY_SECONDS", 0)
    asked = list[str]()

    def away_at_first(history: dg.DagsterInstance, run: dg.DagsterRun) -> None:
        asked.append(run.run_id)
        if len(asked) == 1:
            raise AWAY
        claim(history, run)

    monkeypatch.setattr("embedding_pipeline.defs.recording.claim", away_at_first)
    result = project.run(instance, DAYS[0])
    assert result.success
    assert len([event for event in result.all_events if event.is_step_restarted]) == 1
