"""What Dagster itself takes for a range run that does nothing.

Run with ``python -m benchmarks.events``.

Two assets and six checks over ``--days`` partitions, which only say that they are done: by
Dagster's SQLite storage, and by ours that writes in batches. Prints seconds of both, and
milliseconds a day, as JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from embedding_pipeline.defs.compat import check_output, declaring, instance_ref, range_tags
from embedding_pipeline.defs.event_log import stored_together

FIRST = date(2025, 1, 1)
CHECKS = {"one": 4, "two": 2}
CUSTOM = {"module": "embedding_pipeline.defs.event_log", "class": "BatchedSqliteStorage"}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def asset_of(name: str, days: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        for day in context.partition_keys:
            context.add_asset_metadata({"rows": 50, "path": f"{name}/{day}"}, partition_key=day)
        return dg.MaterializeResult(asset_key=name)

    policy = dg.BackfillPolicy.single_run()
    return dg.asset(name=name, partitions_def=days, backfill_policy=policy)(made)


def checks_of(name: str, days: dg.PartitionsDefinition[str]) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(f"check_{n}", asset=name, partitions_def=days)
        for n in range(CHECKS[name])
    ]

    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        for spec in specs:
            with stored_together(context.instance):
                for day in context.partition_keys:
                    yield dg.AssetCheckEvaluation(
                        spec.asset_key, spec.name, passed=True, metadata={}, partition=day
                    )
            yield check_output(spec)

    return dg.multi_asset_check(name=f"{name}_checks", specs=specs)(checks)


def measure(home: Path, storage: dict[str, object], days: int) -> dict[str, float]:
    keys = [(FIRST + timedelta(days=n)).isoformat() for n in range(days)]
    with declaring():
        partitions = dg.StaticPartitionsDefinition(keys)
        assets = [asset_of(name, partitions) for name in CHECKS]
        checks = [checks_of(name, partitions) for name in CHECKS]
        job = dg.Definitions(
            assets=assets,
            asset_checks=checks,
            jobs=[dg.define_asset_job("all", [*assets, *checks])],
        ).resolve_job_def("all")
    home.mkdir()
    ref = instance_ref(home, {"storage": storage, "telemetry": {"enabled": False}})
    with dg.DagsterInstance.from_ref(ref) as instance:
        begun = time.perf_counter()
        tags = range_tags(keys[0], keys[-1])
        assert job.execute_in_process(instance=instance, tags=tags, run_config=QUIET).success
        seconds = time.perf_counter() - begun
    return {"seconds": round(seconds, 1), "ms_a_day": round(1000 * seconds / days, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--work", type=Path, help="an empty folder; a temporary one otherwise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        homes = Path(work) / "batched", Path(work) / "dagster"
        here = [{"base_dir": str(home)} for home in homes]
        batched = measure(homes[0], {"custom": {**CUSTOM, "config": here[0]}}, options.days)
        own = measure(homes[1], {"sqlite": here[1]}, options.days)
    print(json.dumps({"batched": batched, "dagster": own}))


if __name__ == "__main__":
    main()
