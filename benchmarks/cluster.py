"""A backfill over the workers of ``make cluster``, with what can go wrong in production.

Run with ``python -m benchmarks.cluster --scene calm`` (or ``kill``, ``postgres``, ``redis``); it
takes some minutes, for Dagster looks around every 30 seconds. In a folder of its own, the
cluster of ``deploy`` comes up; 60 days are embedded against the fake API, which keeps limits.
Fails unless there was no 429, no budget was passed, each text was billed once (plus what was
in flight where a worker was killed), and every check of every day is green. Prints JSON.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embedding_pipeline_tests.deploy.stage import (
    Shape,
    Stage,
    children,
    kill,
    must_hold,
    staged,
    until,
)
from embedding_pipeline_tests.fake_openai.process import process

RPM, TPM = 1_200, 120_000
NANO_USD_A_TOKEN = 20


def kill_worker(stage: Stage) -> int:
    """A worker with its runs is killed while requests are out."""
    busy = the_busy_worker(stage)
    most = in_flight_of(len(children(busy)))
    kill(busy, *children(busy))
    return most


def restart_postgres(stage: Stage) -> int:
    """PostgreSQL is restarted, at once and without waiting for anybody, in the midst of it."""
    the_busy_worker(stage)
    with stage.cluster.supervisor() as supervisor:
        supervisor.signalProcess("postgres", "QUIT")
    return in_flight_of(8)


def flush_redis(stage: Stage) -> int:
    """Redis forgets everything, and is restarted."""
    from redis import Redis

    the_busy_worker(stage)
    with Redis(unix_socket_path=str(stage.cluster.sockets / "redis.sock")) as redis:
        redis.flushall()
    with stage.cluster.supervisor() as supervisor:
        supervisor.signalProcess("redis", "KILL")
    return in_flight_of(8)


def the_busy_worker(stage: Stage) -> int:
    """The main process of a worker that has requests out."""
    found: list[int] = []

    def busy() -> bool:
        out = stage.flying() if stage.api.books.inputs else set()
        found[:] = [pid for pid in stage.workers().values() if out & set(children(pid))]
        return bool(found)

    until(busy, "a worker with requests out")
    return found[0]


def in_flight_of(runs: int) -> int:
    """Most texts that so many runs have out at once."""
    return runs * 4 * 10


SCENES: Mapping[str, Callable[[Stage], int] | None] = {
    "calm": None,
    "kill": kill_worker,
    "postgres": restart_postgres,
    "redis": flush_redis,
}


def prove(stage: Stage, name: str) -> dict[str, Any]:
    """One backfill with one scene in it. Raises AssertionError."""
    begun = time.perf_counter()
    with stage.backfill() as running:
        scene = SCENES[name]
        most = 0 if scene is None else scene(stage)
        said = stage.ended(running)
    seconds = time.perf_counter() - begun
    found = {"cpu_seconds": round(stage.cpu_seconds()), **must_hold(stage, most)}
    stage.run("backfill", "--wait", "--start", *ends(stage))
    assert stage.api.books.requests == found["requests"], "a rerun makes no request"
    return {"scene": name, "seconds": round(seconds), "deferred": said["deferred"], **found}


def ends(stage: Stage) -> tuple[str, str, str]:
    """The first day, the option, and the last."""
    return stage.shape.names[0], "--end", stage.shape.names[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scene", choices=SCENES, default="calm")
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--latency", type=float, default=1.0, help="seconds of one request")
    options = parser.parse_args()
    shape = Shape(options.days)
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "yes"
    with tempfile.TemporaryDirectory() as work, process() as api:
        api.option(latency=options.latency)
        api.limit(rpm=RPM, tpm=TPM)
        tokens = 6 * shape.capped * shape.days  # about two thirds of what these texts cost
        budget = {
            "scope": "project:capped",
            "period": "total",
            "limit_usd": tokens * NANO_USD_A_TOKEN / 1e9,
        }
        root = Path(work) / "project"
        with staged(root, shape, api, budgets=[budget]) as stage:
            try:
                found = prove(stage, options.scene)
            except BaseException:
                print(stage.logs())
                raise
    print(json.dumps(found))


if __name__ == "__main__":
    main()
