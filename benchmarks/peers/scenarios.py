"""The scenarios A to H: what the server does, what the clients are asked, what is read off.

Belongs here: one function a scenario, ``(bench, client) → figures``. Figures that nobody else
publishes come from the server's own books. Does not belong here: printing (``report``).
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.engine.corpus import texts
from benchmarks.peers.clients import MODEL
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.fake_openai.replies import expected_vector

TOKENS_EACH = 195
"""UTF-8 bytes / 4 of a text of the corpus: what a limit counts."""

PATIENCE_SECONDS = 1800

Figures = dict[str, float | str]


@dataclass(frozen=True)
class Bench:
    """How much is asked.

    Attributes:
        pythons: the interpreter of each client.
        chunks: texts of one run.
        growing: numbers of texts for G.
        days: partitions for H.
    """

    pythons: dict[str, str]
    chunks: int
    growing: tuple[int, ...]
    days: int

    def command(self, client: str, base_url: str, folder: str, count: int, *more: str) -> list[str]:
        """A run of a client in a process of its own."""
        child = [self.pythons[client], "-W", "ignore", "-m", "benchmarks.peers.child", client]
        place = ["--base-url", base_url, "--folder", folder, "--count", str(count)]
        return [*child, *place, *more]

    def run(self, client: str, base_url: str, folder: str, count: int, *more: str) -> Figures:
        """That run to its end."""
        command = self.command(client, base_url, folder, count, *more)
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_SECONDS,
                env=_environment(),
            )
        except subprocess.TimeoutExpired:
            return {"made": 0, "error": f"not done after {PATIENCE_SECONDS} s"}
        if done.returncode:
            return {"made": 0, "error": done.stderr.strip().splitlines()[-1][:120]}
        figures: Figures = json.loads(done.stdout.splitlines()[-1])
        return figures


def _environment() -> dict[str, str]:
    here = str(Path(__file__).resolve().parents[2])
    return {
        **os.environ,
        "PYTHONPATH": here,
        "OMP_NUM_THREADS": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
    }


@contextmanager
def _stage(*arguments: str) -> Iterator[tuple[FakeProcess, str]]:
    """A server of its own and an empty folder."""
    with TemporaryDirectory(prefix="bench-") as folder, process(*arguments) as server:
        yield server, folder


def cpu(bench: Bench, client: str) -> Figures:
    """A: no limits, answers at once."""
    with _stage("--precomputed") as (server, folder):
        found = bench.run(client, server.base_url, folder, bench.chunks, "--warm")
    if found.get("error"):
        return found
    thousand = float(found["made"]) / 1000
    return {
        "CPU s / 1,000": float(found["cpu"]) / thousand,
        "chunks / s": float(found["made"]) / float(found["wall"]),
    }


def latency(bench: Bench, client: str) -> Figures:
    """B: every answer takes 300 ms."""
    with _stage("--precomputed", "--latency", "0.3") as (server, folder):
        found = bench.run(client, server.base_url, folder, bench.chunks, "--warm")
    return found if found.get("error") else {"seconds": found["wall"]}


def limits(bench: Bench, client: str) -> Figures:
    """C: a limit that lets the work through in about half a minute after a full bucket."""
    tpm = bench.chunks * TOKENS_EACH / 1.5
    with _stage("--precomputed", "--tpm", str(tpm), "--rpm", "500") as (server, folder):
        found = bench.run(client, server.base_url, folder, bench.chunks)
        books = server.books
    wall = float(found.get("wall", 0.0))
    allowed = min(tpm + tpm * wall / 60, bench.chunks * TOKENS_EACH * 10.0)
    return {
        "made": found["made"],
        "seconds": wall,
        "429s": books.statuses.get("429", 0),
        "share of the limit": books.inputs * TOKENS_EACH / allowed if wall else 0.0,
        "error": found["error"],
    }


def cached(bench: Bench, client: str) -> Figures:
    """D: the same texts again, in a new process."""
    with _stage("--precomputed") as (server, folder):
        first = bench.run(client, server.base_url, folder, bench.chunks)
        if first.get("error"):
            return first
        server.reset()
        found = bench.run(client, server.base_url, folder, bench.chunks)
        paid = server.books.inputs
    return {"seconds": found["wall"], "paid again": paid / bench.chunks, "error": found["error"]}


FAULTS = ("500", "billed_reset", "reset", "429_tokens", "reversed", "null_vector", "short_length")
"""Kinds of which the server knows; each strikes one request in twenty."""


def faults(bench: Bench, client: str) -> Figures:
    """E: failures, broken connections and spoilt replies; what arrives, and what of it is right."""
    count = min(bench.chunks, 5000)
    with _stage() as (server, folder):
        known = [Fault(kind, rate=0.05, seconds=1.0) for kind in FAULTS if kind in _kinds()]
        server.fault(*known, seed=1)
        out = str(Path(folder) / "vectors.npy")
        kept = str(Path(folder) / "kept")
        found = bench.run(client, server.base_url, kept, count, "--out", out)
        wrong = _wrong(out, count) if found["made"] else 0
        paid = server.books.inputs
    return {
        "made": found["made"],
        "wrong vectors": wrong,
        "paid for": paid / count,
        "error": found["error"],
    }


def _kinds() -> set[str]:
    from embedding_pipeline_tests.fake_openai.faults import BILLED_WIRE, REFUSALS, UNBILLED_WIRE
    from embedding_pipeline_tests.fake_openai.replies import REPLIES

    return {*REFUSALS, *REPLIES, *BILLED_WIRE, *UNBILLED_WIRE}


def _wrong(out: str, count: int) -> int:
    vectors = np.load(out)
    pairs = zip(vectors, texts(count), strict=False)
    right = sum(np.allclose(v, expected_vector(MODEL, text, 1536), atol=1e-6) for v, text in pairs)
    return len(vectors) - right


def kill(bench: Bench, client: str) -> Figures:
    """F: killed when half is billed, then run again."""
    with _stage("--latency", "0.2") as (server, folder):
        command = bench.command(client, server.base_url, folder, bench.chunks)
        sink = subprocess.DEVNULL
        running = subprocess.Popen(command, env=_environment(), stdout=sink, stderr=sink)
        while server.books.inputs < bench.chunks / 2 and running.poll() is None:
            time.sleep(0.02)
        struck = running.poll() is None
        running.send_signal(signal.SIGKILL)
        running.wait()
        found = bench.run(client, server.base_url, folder, bench.chunks)
        books = server.books
    again = sum(times - 1 for times in books.billed.values())
    return {
        "killed at work": str(struck),
        "billed again": again / bench.chunks,
        "made": found["made"],
        "error": found["error"],
    }


def growth(bench: Bench, client: str) -> Figures:
    """G: the peak of memory as the number of chunks grows, all of it handed over as one matrix."""
    peaks: Figures = {}
    for count in bench.growing:
        with _stage("--precomputed") as (server, folder):
            found = bench.run(client, server.base_url, folder, count)
        if found.get("error"):
            return {**peaks, "error": found["error"]}
        peaks[f"MB at {count:,}"] = found["peak_mb"]
    return peaks


def backfill(bench: Bench, client: str) -> Figures:
    """H: many days one after the other, half of each day's texts being the day's before."""
    each = max(bench.chunks // bench.days, 2) // 2 * 2
    with _stage("--precomputed") as (server, folder):
        found = bench.run(
            client, server.base_url, folder, each, "--days", str(bench.days), "--warm"
        )
        paid = server.books.inputs - 64
    needed = each + (bench.days - 1) * each // 2
    return {"seconds": found.get("wall", 0.0), "paid for": paid / needed, "error": found["error"]}


SCENARIOS: dict[str, tuple[str, Callable[[Bench, str], Figures]]] = {
    "A": ("CPU and speed, no limits", cpu),
    "B": ("slow answers", latency),
    "C": ("a rate limit", limits),
    "D": ("the same again", cached),
    "E": ("faults", faults),
    "F": ("a kill", kill),
    "G": ("growth", growth),
    "H": ("many days", backfill),
}
