"""The latest materialization of many partitions, however long their history."""

import dagster as dg
import pytest

from embedding_pipeline.defs import materialized

ASSET = dg.AssetKey("thing")


def report(instance: dg.DagsterInstance, day: str) -> dg.EventLogRecord:
    instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, partition=day))
    return instance.fetch_materializations(ASSET, limit=1).records[0]


@pytest.mark.parametrize("page", [1, 2, 500])
def test_each_partition_has_its_latest_and_the_others_none(
    page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(materialized, "PAGE", page)
    with dg.DagsterInstance.ephemeral() as instance:
        reported = {day: report(instance, day) for day in ("a", "b", "b", "a", "c", "b")}
        found = materialized.latest_materializations(instance, ASSET, ["a", "b", "never"])
        assert {day: (it.storage_id, it.run_id) for day, it in found.items()} == {
            day: (reported[day].storage_id, reported[day].run_id) for day in ("a", "b")
        }
        assert found["b"].timestamp == pytest.approx(reported["b"].timestamp, abs=1e-5)
