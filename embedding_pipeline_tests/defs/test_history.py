"""``cost_history`` in a Dagster run: figures to plot, images to look at, a page on disk."""

from pathlib import Path

import dagster as dg

from embedding_pipeline_tests.defs.books import figures
from embedding_pipeline_tests.defs.conftest import DAYS, Project


def history(project: Project, instance: dg.DagsterInstance) -> dg.AssetMaterialization:
    """Make the asset by itself; its event."""
    job = project.defs().resolve_implicit_job_def_def_for_assets([dg.AssetKey("cost_history")])
    assert job is not None
    job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("cost_history")])
    record = instance.fetch_materializations(dg.AssetKey("cost_history"), limit=1).records[0]
    assert record.partition_key is None
    assert record.asset_materialization is not None
    return record.asset_materialization


def test_all_days_are_in_one_history(project: Project, instance: dg.DagsterInstance) -> None:
    assert figures(history(project, instance))["cost_usd"] == 0, "before anything was made"
    project.run(instance, *DAYS[:2])
    event = history(project, instance)
    found, books = figures(event), project.api.books
    assert found["cost_usd"] * 1e9 == books.cost_nano_usd
    assert found["month_usd"] == found["cost_usd"]
    assert found["saved_usd"] > 0
    assert found["dagster/row_count"] == 1
    path = event.metadata["report"].value
    assert "Costs of embedding" in Path(str(path)).read_text()
    for chart in ("spending_by_day", "spending_by_project", "spending_by_model", "saved_by"):
        assert "](data:image/svg+xml;base64," in str(event.metadata[chart].value)
    advice = str(event.metadata["advice"].value)
    assert "Use the Batch API for 100%" in advice


def test_the_nightly_job_leaves_it_out(project: Project) -> None:
    job = project.defs().resolve_job_def("embedding_job")
    assert dg.AssetKey("cost_history") not in job.asset_layer.selected_asset_keys
