"""``python -m benchmarks.cache``: every cache in processes of its own, one table.

``caches``: put_many(1000) and get_many(1000), hot and cold, and bytes an entry.
``rerun``: a fully cached rerun through the Dagster asset against LangChain's cached read.

LangChain and LiteLLM may live in an environment of their own (``--peers-python``).
"""

import argparse
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.cache.clients import CLIENTS
from benchmarks.cache.steps import MANY, take_step

FIGURES = ("put", "put_cpu", "hot", "hot_cpu", "cold", "cold_cpu")


def run(name: str, python: str, count: int, rounds: int) -> dict[str, float] | None:
    """Fill one cache and read it; None where its library is not installed."""
    from benchmarks.cache import servers

    backend, foreign, _ = CLIENTS[name]
    chosen = python if foreign else sys.executable
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-cache-")))
        place = str(folder)
        if backend == "postgres":
            place = stack.enter_context(servers.postgres())
        elif backend == "redis":
            place = stack.enter_context(servers.redis(folder))
        empty = servers.size(backend, place, folder)
        filled = step(chosen, "fill", name, place, count, rounds)
        if filled is None:
            return None
        used = servers.size(backend, place, folder) - empty
        read = step(chosen, "read", name, place, count, rounds) or {}
        return {**filled, **read, "bytes": used / count}


def step(
    python: str, which: str, name: str, place: str, count: int, rounds: int
) -> dict[str, float] | None:
    """One step in a fresh process."""
    numbers = ["--count", str(count), "--rounds", str(rounds)]
    done = subprocess.run(
        [python, "-W", "ignore", "-m", "benchmarks.cache", "--step", which, name, place, *numbers],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    if "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def caches(python: str, count: int, rounds: int, only: str) -> None:
    """The table."""
    print(f"{count:,} entries of 1,536 dimensions; milliseconds a thousand, CPU in brackets")
    print(f"{'':22}{'put':>16}{'get, hot':>16}{'get, cold':>16}{'bytes':>9}")
    found = {}
    for name in CLIENTS:
        if only not in name:
            continue
        figures = run(name, python, count, rounds)
        if figures is None:
            print(f"{name:22} not installed, skipped")
            continue
        found[name] = figures
        pairs = ((figures[FIGURES[i]], figures[FIGURES[i + 1]]) for i in (0, 2, 4))
        cells = "".join(f"{f'{wall:,.0f} ({cpu:,.0f})':>16}" for wall, cpu in pairs)
        lost = "" if figures["kept"] == MANY else f"  keeps {figures['kept']:.0f} of {MANY}"
        print(f"{name:22}{cells}{figures['bytes']:>9,.0f}{lost}", flush=True)
    _ratios(found)


def _ratios(found: dict[str, dict[str, float]]) -> None:
    print(
        "\ntimes ours, on the same kind of backend: put, hot, cold, bytes (CPU for the first three)"
    )
    for name, figures in found.items():
        backend, foreign, _ = CLIENTS[name]
        ours = next((o for o in found if CLIENTS[o][0] == backend and not CLIENTS[o][1]), None)
        if not foreign or ours is None:
            continue
        keys = ("put_cpu", "hot_cpu", "cold_cpu", "bytes", "put", "hot", "cold")
        put, hot, cold, size, *wall = (figures[key] / found[ours][key] for key in keys)
        times = ", ".join(f"{value:.1f}" for value in wall)
        print(f"  {name:22}{put:7.1f}{hot:7.1f}{cold:7.1f}{size:7.1f}   (wall: {times})")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="benchmarks.cache", description=__doc__)
    parser.add_argument("scenario", nargs="?", choices=("caches", "rerun", "all"), default="all")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="only caches whose name holds this")
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--step", nargs=3, metavar=("STEP", "NAME", "PLACE"))
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(take_step(*arguments.step, arguments.count, arguments.rounds)))
        return
    if arguments.scenario in ("caches", "all"):
        caches(arguments.peers_python, arguments.count, arguments.rounds, arguments.only)
    if arguments.scenario in ("rerun", "all"):
        from benchmarks.cache import rerun  # not in the peers' environment

        rerun.compare(arguments.peers_python, arguments.chunks, arguments.rounds, step)


if __name__ == "__main__":
    main()
