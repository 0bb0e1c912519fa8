"""``python -m benchmarks.engine``: every client in a process of its own, one table.

``cpu``: CPU seconds of the client a thousand vectors, the server's not counted.
``latency``: seconds for 10,000 chunks when every answer takes 300 ms.
``memory``: peak megabytes of our whole path at growing numbers of chunks.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.engine.clients import CLIENTS, START_CLOCK, STOP_CLOCK, prepare, whole_from_disk
from benchmarks.engine.corpus import texts

KEY = "sk-fake-0123456789abcdef"
"""The key the fake API accepts."""

PYTHON = {"LangChain": sys.executable, "LlamaIndex": sys.executable}
"""Peers may live in an environment of their own (``--peers-python``)."""


def measure(name: str, base_url: str, count: int) -> dict[str, float]:
    """Run one client here: CPU and wall seconds of its own work, peak memory."""
    corpus = list(texts(count))
    began: list[tuple[float, float]] = []
    ended: list[tuple[float, float]] = []
    START_CLOCK[0] = lambda: began.append(_now())
    STOP_CLOCK[0] = lambda: ended.append(_now())
    warm = list(texts(64, first=10**7))
    asyncio.run(CLIENTS[name](base_url, KEY, warm))  # imports and first connection
    ended.clear()
    START_CLOCK[0]()
    made = asyncio.run(CLIENTS[name](base_url, KEY, corpus))
    cpu, wall = (b - a for a, b in zip(began[-1], (ended or [_now()])[-1], strict=True))
    assert made == count, f"{name} made {made} of {count}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu": cpu, "wall": wall, "peak_mb": peak}


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def in_process(name: str, base_url: str, count: int) -> dict[str, float] | None:
    """``measure`` in a fresh process; None where the client is not installed."""
    command = [PYTHON.get(name, sys.executable), "-m", "benchmarks.engine", "--client", name]
    done = subprocess.run(
        [*command, "--base-url", base_url, "--count", str(count)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if "ModuleNotFoundError" in done.stderr:
        return None
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def cpu(count: int, rounds: int) -> None:
    """CPU seconds a thousand vectors, interleaved rounds, medians."""
    from embedding_pipeline_tests.fake_openai.process import process

    found: dict[str, list[float]] = {}
    with process("--precomputed") as server:
        for _ in range(rounds):
            for name in CLIENTS:
                figures = in_process(name, server.base_url, count)
                if figures:
                    found.setdefault(name, []).append(figures["cpu"] / count * 1000)
    _table("CPU seconds per 1,000 vectors", found)
    ours, floor, peer = (median(found[n]) for n in ("ours, engine", "bare aiohttp", "openai SDK"))
    print(f"engine / bare loop: {ours / floor:.2f} (target ≤ 2.5)")
    print(f"whole path / SDK:   {median(found['ours, whole path']) / peer:.2f} (target ≤ 0.5)")


def latency(count: int) -> None:
    """Wall seconds with 300 ms an answer."""
    from embedding_pipeline_tests.fake_openai.process import process

    found: dict[str, list[float]] = {}
    with process("--precomputed", "--latency", "0.3") as server:
        for name in CLIENTS:
            figures = in_process(name, server.base_url, count)
            if figures:
                found[name] = [figures["wall"]]
    _table(f"seconds for {count} chunks at 300 ms", found)


def memory(counts: Sequence[int]) -> None:
    """Peak memory of the whole path, over chunks that another process wrote."""
    from embedding_pipeline_tests.fake_openai.process import process

    peaks = []
    with process("--precomputed") as server:
        for count in counts:
            with TemporaryDirectory() as folder:
                arguments = ["--folder", folder, "--base-url", server.base_url]
                _self("prepare", "--count", str(count), *arguments)
                figures = json.loads(_self("whole", *arguments).splitlines()[-1])
            assert figures["made"] == count
            peaks.append(figures["peak_mb"])
            print(f"{count:>8} chunks: {peaks[-1]:.0f} MB, {figures['wall']:.1f} s", flush=True)
    apart = (max(peaks) / min(peaks) - 1) * 100
    print(f"highest: {max(peaks):.0f} MB (target < 600)")
    print(f"highest over lowest: {apart:.0f} % (target ≤ 15)")


def _self(step: str, *arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks.engine", "--step", step, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def take_step(arguments: argparse.Namespace) -> None:
    """One step of ``memory``, in a process of its own."""
    if arguments.step == "prepare":
        prepare(arguments.folder, texts(arguments.count))
        return
    began = time.perf_counter()
    made = asyncio.run(whole_from_disk(arguments.base_url, KEY, arguments.folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"made": made, "peak_mb": peak, "wall": time.perf_counter() - began}))


def _table(title: str, found: dict[str, list[float]]) -> None:
    print(f"\n{title} (median, min, max of {max(map(len, found.values()))})")
    for name, values in found.items():
        print(f"  {name:18} {median(values):8.4f} {min(values):8.4f} {max(values):8.4f}")
    for name in CLIENTS.keys() - found.keys():
        print(f"  {name:18} not installed, skipped")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="benchmarks.engine", description=__doc__)
    parser.add_argument("scenario", nargs="?", choices=("cpu", "latency", "memory", "all"))
    parser.add_argument("--client")
    parser.add_argument("--step", choices=("prepare", "whole"))
    parser.add_argument("--folder", default="")
    parser.add_argument("--base-url", default="")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 500_000])
    parser.add_argument("--peers-python", help="interpreter that has LangChain and LlamaIndex")
    arguments = parser.parse_args()
    if arguments.peers_python:
        PYTHON.update(dict.fromkeys(PYTHON, arguments.peers_python))
    if arguments.step:
        take_step(arguments)
        return
    if arguments.client:
        print(json.dumps(measure(arguments.client, arguments.base_url, arguments.count)))
        return
    scenario = arguments.scenario or "all"
    if scenario in ("cpu", "all"):
        cpu(arguments.count, arguments.rounds)
    if scenario in ("latency", "all"):
        latency(arguments.count)
    if scenario in ("memory", "all"):
        memory(arguments.sizes)


if __name__ == "__main__":
    main()
