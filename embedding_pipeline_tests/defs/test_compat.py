"""What we lean on in Dagster is still there.

When one of these fails after an upgrade, read ``defs.compat`` before touching the test.
"""

import dagster as dg

from embedding_pipeline.defs import compat
from embedding_pipeline.defs.materialized import latest_materializations
from embedding_pipeline_tests.defs.books import check_statuses, materializations

DAYS = ("2026-01-01", "2026-01-02", "2026-01-03")
ASSET = dg.AssetKey("thing")


def graph(*, by_partition: bool) -> dg.Definitions:
    with compat.declaring():
        days = dg.DailyPartitionsDefinition(DAYS[0])

        @dg.asset(partitions_def=days, backfill_policy=dg.BackfillPolicy.single_run())
        def thing(context: dg.AssetExecutionContext) -> compat.Result:
            for day in context.partition_keys:
                context.add_asset_metadata({"rows": int(day[-2:])}, ASSET, day)
            return dg.MaterializeResult(tags={"made": "here"})

        spec = dg.AssetCheckSpec("fine", asset=ASSET, blocking=True, partitions_def=days)

        @dg.multi_asset_check(specs=[spec])
        async def checks(context: dg.AssetCheckExecutionContext) -> compat.Evaluations:
            made = latest_materializations(context.instance, ASSET, context.partition_keys)
            for day in context.partition_keys:
                yield dg.AssetCheckEvaluation(
                    ASSET,
                    "fine",
                    passed=day != DAYS[1],
                    partition=day,
                    blocking=True,
                    target_materialization_data=made[day],
                )
            yield compat.check_output(spec)

        @dg.asset_check(asset=ASSET, name="fine", partitions_def=days)
        def documented() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=True)

        @dg.asset(partitions_def=days, deps=[ASSET], backfill_policy=dg.BackfillPolicy.single_run())
        def after() -> None:
            """Comes after the check."""

        return dg.Definitions(
            assets=[thing, after], asset_checks=[checks if by_partition else documented]
        )


def run(defs: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = defs.resolve_implicit_global_asset_job_def()
    tags = compat.range_tags(DAYS[0], DAYS[-1])
    return job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


def test_a_run_over_a_range_keeps_one_event_and_one_verdict_for_each_partition() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(graph(by_partition=True), instance)
        events = materializations(instance, "thing")
        assert {day: len(found) for day, found in events.items()} == dict.fromkeys(DAYS, 1)
        assert [events[day][0].metadata["rows"].value for day in DAYS] == [1, 2, 3]
        statuses = check_statuses(instance, "thing", "fine")
        assert statuses == {DAYS[0]: ["SUCCEEDED"], DAYS[1]: ["FAILED"], DAYS[2]: ["SUCCEEDED"]}
        assert not result.success
        assert materializations(instance, "after") == {}


def test_dagsters_own_check_result_still_leaves_the_partitions_of_a_range_planned() -> None:
    """When this fails, Dagster has learned it: drop ``compat.check_output`` and its users."""
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(graph(by_partition=False), instance).success
        expected: dict[str | None, list[str]] = {day: ["PLANNED"] for day in DAYS}
        expected[None] = ["SUCCEEDED"]
        assert check_statuses(instance, "thing", "fine") == expected


def test_an_evaluation_points_at_the_materialization_it_judged() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(graph(by_partition=True), instance)
        found = latest_materializations(instance, ASSET, [DAYS[0]])[DAYS[0]]
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(ASSET, "fine"), limit=9
        )
        pointed = {
            event.partition: event.target_materialization_data
            for event in (it.event.dagster_event.event_specific_data for it in history)  # type: ignore[union-attr]
            if isinstance(event, dg.AssetCheckEvaluation)
        }
        assert found.run_id == result.run_id
        assert pointed[DAYS[0]] == found
