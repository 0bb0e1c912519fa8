"""A model change under a real daemon that is killed in the middle, with its runs.

Run with ``python -m benchmarks.daemon``; it takes some minutes, for Dagster looks around every
30 to 60 seconds.

Some small days are embedded with one model, then the settings ask for another. While readers
poll, the sensor of a ``dagster-daemon`` builds the new space against the fake API in a process
of its own; in the midst of it, daemon and runs are killed, and a new daemon is started. Fails
unless readers only ever saw one complete space, old then new; there is one backfill and one
bill; the way back and forward costs no request; and 1536 → 512 → 1536 dimensions cost none,
with every check green on every day.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import dagster as dg
import yaml

import embedding_pipeline
from benchmarks.spaces import FIRST, write_source
from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.assembly.spaces import read_state, wanted
from embedding_pipeline.assembly.switching import promote, rollback, switch_view
from embedding_pipeline.defs import launch
from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline.pipeline.checks import all_checks
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.fake_openai.server import KEY

ROOT = Path(__file__).resolve().parents[1]
SENSOR = "model_change_sensor"
SMALL, VIEW, LARGE = 1536, 512, 3072


class Readers:
    """Polls ``read_vectors`` until told to stop; keeps what it saw, repeats left out."""

    def __init__(self, last: str) -> None:
        self.seen: list[tuple[int, int]] = []
        self._last = last
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> "Readers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._stop.wait(1):
            found = served(self._last)
            if self.seen[-1:] != [found]:
                self.seen.append(found)


def served(last: str) -> tuple[int, int]:
    """Rows and length of the vectors that readers get."""
    table = embedding_pipeline.read_vectors(FIRST.isoformat(), last)
    return table.num_rows, table.schema.field("vector").type.list_size


def ask_for(folder: Path, model: str, dimensions: int | None = None) -> None:
    """Write the settings file."""
    settings = {
        "data_dir": str(folder / "out"),
        "partitions": {"start_date": FIRST},
        "source": {"kind": "files", "path": str(folder / "data" / "{date}.jsonl")},
        "dedup": {"near": False},
        "embedding": {"model": f"openai/text-embedding-3-{model}", "dimensions": dimensions},
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings))


@contextmanager
def daemon(folder: Path) -> Iterator[None]:
    """A daemon with its runs in one session; leaving the block kills all of it, unasked."""
    with (
        (folder / "daemon.log").open("a") as log,
        subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", "-w", "workspace.yaml"],
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as running,
    ):
        try:
            yield
        finally:
            for pid in in_session(running.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def in_session(leader: int) -> list[int]:
    """Every process of a session: the daemon, its code servers, and the runs."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
    return found


def until(done: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait for something. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took longer than {seconds:.0f} s")
        time.sleep(0.2)


def all_green(days: list[str]) -> None:
    """Every check on every day, of what readers get now."""
    settings = load_settings()
    active = read_state(settings).active
    assert active is not None
    for day in days:
        verdicts = all_checks(build_datasets(settings), active.space, active.dimensions, day)
        failing = {name: it.description for name, it in verdicts.items() if not it.passed}
        assert not failing, (day, failing)


def build(folder: Path, last: str, limit: float) -> list[tuple[int, int]]:
    """The change, with a crash in the middle; returns what readers saw."""
    settings = load_settings()
    files = folder / "out" / "embeddings"
    command = [sys.executable, "-m", "dagster", "sensor", "start", SENSOR, "-w", "workspace.yaml"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    with Readers(last) as readers:
        with daemon(folder):
            # what is in flight at a crash has to be asked for again: so not before a day is there
            until(lambda: any(files.glob("*large*/[!.]*.parquet")), "the first day", limit)
        with daemon(folder):

            def promoted() -> bool:
                active = read_state(settings).active
                return active is not None and active.dimensions == LARGE

            until(promoted, "the promotion", limit)
            time.sleep(3)  # readers look once more
    return readers.seen


def prove(
    folder: Path, api: FakeProcess, days: int, chunks: int, limit: float
) -> dict[str, object]:
    """All of it. Raises AssertionError."""
    names = [(FIRST + timedelta(days=day)).isoformat() for day in range(days)]
    ask_for(folder, "small")
    home = folder
    done = launch.backfill(load_settings(), names[0], names[-1], partitions_per_run=days, home=home)
    assert done.success, done.failed
    ask_for(folder, "large")
    begun = time.perf_counter()
    seen = build(folder, names[-1], limit)
    seconds = time.perf_counter() - begun
    books = api.books
    assert seen == [(days * chunks, SMALL), (days * chunks, LARGE)], seen
    with open_instance(load_settings(), home) as instance:
        backfills = instance.get_backfills()
        runs = [run.status.value for run in instance.get_runs(dg.RunsFilter())]
    assert len(books.billed) == days * chunks
    again = sum(books.billed.values()) - 2 * days * chunks
    all_green(names)
    for step in (back, forward):
        step()
        all_green(names)
    ask_for(folder, "large", VIEW)
    for length in (VIEW, LARGE):
        ask_for(folder, "large", None if length == LARGE else length)
        asyncio.run(switch_view(load_settings(), "benchmark"))
        assert served(names[-1])[1] == length
        all_green(names)
    return {
        "seconds": round(seconds, 1),
        "backfills": len(backfills),
        "runs": runs,
        "texts_billed_again": again,
        "requests_after": api.books.requests - books.requests,
        "readers_saw": seen,
    }


def back() -> None:
    """Readers get the old space."""
    asyncio.run(rollback(load_settings(), "benchmark"))


def forward() -> None:
    """Readers get the new space again."""
    settings = load_settings()
    assert asyncio.run(promote(settings, wanted(settings), by="benchmark")).promoted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--chunks", type=int, default=20)
    parser.add_argument("--latency", type=float, default=2.0, help="seconds of one request")
    parser.add_argument("--limit", type=float, default=600, help="seconds to wait for a step")
    options = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = KEY
    with tempfile.TemporaryDirectory() as work, process() as api:
        folder = Path(work)
        os.environ |= {
            "OPENAI_BASE_URL": api.base_url,
            "EMBEDDING_PIPELINE_CONFIG": str(folder / "pipeline.yaml"),
            "DAGSTER_HOME": work,
            "PYTHONPATH": str(ROOT),
        }
        os.chdir(folder)
        for name in ("dagster.yaml", "workspace.yaml"):
            (folder / name).write_text((ROOT / name).read_text())
        api.option(latency=options.latency)
        write_source(folder, options.days, options.chunks)
        try:
            found = prove(folder, api, options.days, options.chunks, options.limit)
        except BaseException:
            print((folder / "daemon.log").read_text()[-4000:], file=sys.stderr)
            raise
    print(json.dumps(found))
    assert found["backfills"] == 1, "more than one backfill"
    assert found["texts_billed_again"] == 0, "a text was billed twice"
    assert found["requests_after"] == 0, "a switch made requests"


if __name__ == "__main__":
    main()
