"""The latest materialization of many partitions, however long their history."""

import dagster as dg
import pytest

from embedding_pipeline.defs import materialized

ASSET = dg.AssetKey("thing")


def report(instance: dg.DagsterInstance, day: str, rows: int) -> None:
    event = dg.AssetMaterialization(ASSET, partition=day, metadata={"rows": rows})
    instance.report_runless_asset_event(event)


@pytest.mark.parametrize("page", [1, 2, 500])
def test_each_partition_has_its_latest_and_the_others_none(
    page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialized, "PAGE", page)
    with dg.DagsterInstance.ephemeral() as instance:
        for rows, day in enumerate(("a", "b", "b", "a", "c", "b")):
            report(instance, day, rows)
        found = materialized.latest_materializations(instance, ASSET, ["a", "b", "never"])
        figures = {
            day: record.asset_materialization.metadata["rows"].value
            for day, record in found.items()
            if record.asset_materialization
        }
        assert figures == {"a": 3, "b": 5}
