"""What Dagster knows after a run, read through its instance as the UI does."""

from collections.abc import Mapping

import dagster as dg

CHECKS = {
    "embeddings": (
        "vector_dimension",
        "vectors_are_finite_unit_norm",
        "single_space",
        "every_chunk_accounted_for",
    ),
    "cost_summary": ("within_budget", "ledger_balances"),
}


def materializations(
    instance: dg.DagsterInstance, asset: str
) -> Mapping[str, list[dg.AssetMaterialization]]:
    """Every materialization of an asset, by partition, newest first; none is without one."""
    found: dict[str, list[dg.AssetMaterialization]] = {}
    for record in instance.fetch_materializations(dg.AssetKey(asset), limit=100).records:
        assert record.asset_materialization is not None
        assert record.partition_key is not None
        found.setdefault(record.partition_key, []).append(record.asset_materialization)
    return found


def figures(event: dg.AssetMaterialization) -> dict[str, float]:
    """The values the UI plots."""
    numbers = (dg.IntMetadataValue, dg.FloatMetadataValue)
    return {
        key: float(value.value or 0)
        for key, value in event.metadata.items()
        if isinstance(value, numbers)
    }


def check_statuses(
    instance: dg.DagsterInstance, asset: str, check: str, limit: int = 100
) -> Mapping[str | None, list[str]]:
    """Every record of a check, by partition, newest first."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), check)
    found: dict[str | None, list[str]] = {}
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit):
        found.setdefault(record.partition, []).append(record.status.value)
    return found


def run_status(instance: dg.DagsterInstance, run_id: str) -> str:
    """The run's status as stored."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status.value
