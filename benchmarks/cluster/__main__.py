"""``python -m benchmarks.cluster --scene calm``: what happens to a backfill over workers.

In a folder of its own, the cluster of ``deploy`` comes up; 60 days are embedded against the fake
API, which keeps limits, in runs of three days, eight at once. One project has a budget for two
thirds of its texts; afterwards somebody raises it. Fails unless there was no 429, no budget was
passed, each text was billed once (plus what was in flight where somebody was killed), every
check of every day is green, and a rerun makes no request. Prints JSON. It takes some minutes, for
Dagster looks around every 30 seconds.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.cluster import small_disk
from benchmarks.cluster.scenes import SCENES, SMALL_DISK, Scene
from deploy.cluster import Cluster
from embedding_pipeline_tests.deploy.stage import (
    Shape,
    Stage,
    must_hold,
    must_keep,
    staged,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.ports import free_ports

RPM, TPM = 60, 120_000
NANO_USD_A_TOKEN = 20
DEFERRED = "are deferred"
"""What a day says that a budget had no room for."""


def prove(stage: Stage, scene: Scene) -> dict[str, Any]:
    """One backfill with one scene in it. Raises AssertionError."""
    begun = time.perf_counter()
    most, said, failed = over_the_workers(stage, scene)
    seconds, cpu = time.perf_counter() - begun, stage.cpu_seconds()
    must_keep(stage)
    deferred = [day for day, why in said["failed"].items() if DEFERRED in why]
    assert deferred, "the budget was never reached"
    stage.without_budgets()
    stage.here()
    found = must_hold(stage, most)
    stage.here()
    assert stage.api.books.requests == found["requests"], "a rerun makes no request"
    what = {"seconds": round(seconds), "cpu_seconds": round(cpu), "deferred": len(deferred)}
    return {**what, "failed": len(failed), "why": sorted(set(failed.values()))[:1], **found}


def over_the_workers(stage: Stage, scene: Scene) -> tuple[int, dict[str, Any], dict[str, str]]:
    """The backfill with its misfortune, and once more when a person had to do something.

    Returns how many texts may be billed again, what was said in the end, and which days failed
    in between.
    """
    with stage.backfill() as running:
        most = scene.strike(stage)
        said = stage.ended(running, scene.remedy)
    failed = {day: why for day, why in said["failed"].items() if DEFERRED not in why}
    if scene.remedy:
        assert failed, "nothing came of it"
        scene.mend()
        with stage.backfill() as running:
            said = stage.ended(running)
    return most, said, failed


def budget_of(shape: Shape) -> dict[str, Any]:
    """About two thirds of what the texts of the capped project cost."""
    tokens = 6 * shape.capped * shape.days
    limit = tokens * NANO_USD_A_TOKEN / 1e9
    return {"scope": "project:capped", "period": "total", "limit_usd": limit}


def play(name: str, shape: Shape, api: FakeProcess, logs: Path | None) -> dict[str, Any]:
    """One scene on a cluster of its own, whose logs go to ``logs``. Raises AssertionError."""
    with tempfile.TemporaryDirectory() as work, SCENES[name]() as scene:
        more = {"budgets": [budget_of(shape)], **scene.settings}
        root = Path(work) / "project"
        with staged(root, shape, api, Cluster(root, *free_ports(1)), **more) as stage:
            try:
                return {"scene": name, "days": shape.days, **prove(stage, scene)}
            except BaseException:
                print(stage.logs())
                raise
            finally:
                if logs:
                    shutil.copytree(stage.cluster.folder / "logs", logs, dirs_exist_ok=True)


def on_a_small_disk() -> int:
    """This very command, where there is a small disk. Returns its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ[SMALL_DISK] = folder
        command = [sys.executable, "-m", "benchmarks.cluster", *sys.argv[1:]]
        return small_disk.run(Path(folder), command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", choices=SCENES, default="calm")
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--latency", type=float, default=1.0, help="seconds of one request")
    parser.add_argument("--logs", type=Path, help="a folder for what the processes wrote")
    options = parser.parse_args()
    if options.scene == "disk" and SMALL_DISK not in os.environ:
        sys.exit(on_a_small_disk())
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
    with process() as api:
        api.option(latency=options.latency)
        api.limit(rpm=RPM, tpm=TPM)
        print(json.dumps(play(options.scene, Shape(options.days), api, options.logs)))


if __name__ == "__main__":
    main()
