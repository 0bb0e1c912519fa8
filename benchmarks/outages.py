"""Two providers that go out and come back, under real runs, a real daemon, and kills.

Run with ``python -m benchmarks.outages``; it takes some minutes, for Dagster's sensor looks
around once a minute.

Days are embedded by the command line against two accounts of the fake API, the second in
Azure's shape. The first goes out in the middle of a run, which goes on with the second. Then
two runs are made at once; one is killed in the middle and made again, and both providers go
out: the runs end well and leave the rest. A ``dagster-daemon`` with ``recovery_sensor`` finds
them out, and finds them back; it is killed with its runs in the middle and started again.
Each day holds a text that is refused. Fails unless every other chunk has its right vector in
the end, once, each provider's bill is in the books, and nothing is left waiting. With
``degrade``, readers poll all the time: every chunk has its vector or a stand-in.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import yaml
from sqlalchemy import func, select

import embedding_pipeline
from benchmarks.spaces import FIRST, write_source
from embedding_pipeline.assembly.parts import build_datasets, open_store
from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline.ledger.deferred import backlogs
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.state.schema import ledger
from embedding_pipeline.vectors.columns import matrix_of
from embedding_pipeline_tests.defs.daemon import daemon, dagster, in_session, kill, until
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.fake_openai.replies import expected_vector
from embedding_pipeline_tests.fake_openai.server import KEY

ROOT = Path(__file__).resolve().parents[1]
MODEL, DEPLOYMENT, SENSOR = "text-embedding-3-small", "west", "recovery_sensor"
LENGTH, STAND_IN_LENGTH = 1536, 512
DOWN, POISON = Fault("503_server_error"), Fault("400_input", marker="POISON")


class World:
    """Settings, source, and the two accounts."""

    def __init__(self, folder: Path, first: FakeProcess, second: FakeProcess) -> None:
        self.folder, self.first, self.second = folder, first, second

    def prepare(self, on_outage: str, days: int, chunks: int, latency: float) -> list[str]:
        """Write all that a user would; returns the days."""
        write_source(self.folder, days, chunks)
        names = [(FIRST + timedelta(days=day)).isoformat() for day in range(days)]
        for name in names:
            with (self.folder / "data" / f"{name}.jsonl").open("a") as file:
                file.write("\n" + json.dumps({"id": f"{name}-poison", "text": f"POISON {name}"}))
        for name in ("dagster.yaml", "workspace.yaml"):
            (self.folder / name).write_text((ROOT / name).read_text())
        resource = self.second.base_url.removesuffix("/v1")
        azure = {"name": "azure", "kind": "azure", "base_url": resource, "deployment": DEPLOYMENT}
        settings = {
            "data_dir": str(self.folder / "out"),
            "partitions": {"start_date": FIRST},
            "source": {"kind": "files", "path": str(self.folder / "data" / "{date}.jsonl")},
            "dedup": {"near": False},
            "embedding": {"model": f"openai/{MODEL}"},
            "providers": [
                {"name": "openai", "kind": "openai", "base_url": self.first.base_url},
                {**azure, "priority": 1},
            ],
            "requests": {"max_inputs": 10},
            "limits": {"max_in_flight": 1},
            "retry": {"max_attempts": 2, "max_seconds": 20},
            "on_outage": on_outage,
        }
        (self.folder / "pipeline.yaml").write_text(yaml.safe_dump(settings))
        self.second.option(deployments={DEPLOYMENT: MODEL})
        for api in (self.first, self.second):
            api.option(latency=latency)
            api.fault(POISON)
        return names

    def billed(self) -> int:
        """Texts that both have billed."""
        return self.first.books.inputs + self.second.books.inputs

    @contextmanager
    def backfill(self, days: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
        """Our command over some days, in a session of its own."""
        code = "from embedding_pipeline.cli import main; main()"
        arguments = ["backfill", "--start", days[0], "--end", days[-1], "--wait"]
        with (
            (self.folder / "runs.log").open("a") as log,
            subprocess.Popen(
                [sys.executable, "-c", code, *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            ) as running,
        ):
            yield running


class Readers:
    """Polls days that were written once; keeps what was wrong, and the most stand-ins."""

    def __init__(self, chunks: int) -> None:
        self.days: list[str] = []
        self.wrong: list[str] = []
        self.looks = self.most = 0
        self._chunks = chunks
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> "Readers":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._stop.wait(0.3):
            for day in tuple(self.days):
                self._look(day)

    def _look(self, day: str) -> None:
        both = embedding_pipeline.read_vectors(day, day, stand_ins=True)
        names = [name for table in both[:2] for name in table["chunk_id"].to_pylist()]
        lengths = [table.schema.field("vector").type.list_size for table in both[:2]]
        self.looks += 1
        self.most = max(self.most, both.stand_ins.num_rows)
        if len(names) != len(set(names)) or len(names) < self._chunks:
            self.wrong.append(f"{day}: {len(set(names))} chunks in {len(names)} rows")
        if lengths != [LENGTH, STAND_IN_LENGTH]:
            self.wrong.append(f"{day}: vectors of {lengths}")


def waiting() -> int:
    """Chunks that are left for later."""
    with open_store(load_settings()) as store:
        return sum(one.chunks for one in store.ask(backlogs))


def settled() -> dict[str, int]:
    """Tokens in the ledger by provider, those nobody can know left out."""
    c = ledger.c
    query = select(c.provider, func.sum(c.tokens)).where(c.outcome == "settled")
    with open_store(load_settings()) as store:
        rows = store.ask(lambda connection: connection.execute(query.group_by(c.provider)).all())
    return {str(name): int(tokens) for name, tokens in rows if tokens}


def all_right(days: Sequence[str], chunks: int) -> None:
    """Every chunk but the refused ones has its own vector. Raises AssertionError."""
    table = embedding_pipeline.read_vectors(days[0], days[-1], with_text=True)
    assert table.num_rows == len(days) * chunks, table.num_rows
    vectors = matrix_of(table["vector"].combine_chunks())
    for text, vector in zip(table["text"].to_pylist(), vectors, strict=True):
        assert np.array_equal(vector, expected_vector(MODEL, text, LENGTH)), text


def outage_of_the_first(world: World, days: Sequence[str], chunks: int) -> None:
    """In mid-run; the run goes on with the other account."""
    with world.backfill(days) as run:
        until(lambda: world.billed() * 3 >= len(days) * chunks, "a third of the first run")
        world.first.fault(DOWN)
        assert run.wait() == 0
    all_right(days, chunks)
    assert world.first.books.inputs > 0 < world.second.books.inputs
    assert waiting() == 0


def outage_of_both(world: World, early: Sequence[str], late: Sequence[str]) -> int:
    """Two runs at once, one of them killed; both end well once nobody answers."""
    before = world.billed()
    with world.backfill(early) as run, world.backfill(late) as doomed:
        until(lambda: world.billed() >= before + 20, "some of both runs")
        kill(in_session(doomed.pid))
        world.second.fault(DOWN)
        assert run.wait() == 0
    with world.backfill(late) as again:
        assert again.wait() == 0
    return waiting()


def recovery(
    world: World, runs_before: int, limit: float, *, calm: bool
) -> tuple[float, int, float]:
    """The daemon finds them out, finds them back, dies unless it is calm, and completes all.

    Returns:
        Seconds from the return to the first request, chunks left when the daemon died, and
        seconds from the return to the end.
    """
    dagster(world.folder, "sensor", "start", SENSOR)
    with daemon(world.folder):
        asked = world.first.books.requests
        until(lambda: world.first.books.requests > asked, "a probe", limit)
        assert len(all_runs()) == runs_before, "nothing is launched in vain"
        for api in (world.first, world.second):
            api.fault(POISON)
        back, billed = time.monotonic(), world.billed()
        until(lambda: world.billed() >= billed + 11, "the first request of a run", limit)
        found = time.monotonic() - back
        if calm:
            until(lambda: waiting() == 0, "the end", limit)
            return found, 0, time.monotonic() - back
    left = waiting()
    with daemon(world.folder):
        until(lambda: waiting() == 0, "the end", limit)
    return found, left, time.monotonic() - back


def all_runs() -> Sequence[dg.DagsterRun]:
    with open_instance(load_settings(), Path(os.environ["DAGSTER_HOME"])) as instance:
        return instance.get_runs()


def prove(
    world: World, days: Sequence[str], chunks: int, limit: float, *, calm: bool
) -> dict[str, object]:
    """All of it. Raises AssertionError."""
    half, most = len(days) // 2, len(days) * 3 // 4
    outage_of_the_first(world, days[:half], chunks)
    with Readers(chunks) as readers:
        deferred = outage_of_both(world, days[half:most], days[most:])
        assert deferred > 0
        if load_settings().on_outage == "degrade":
            readers.days.extend(days)
        found, left, completed = recovery(world, len(all_runs()), limit, calm=calm)
        done = time.monotonic()
        until(lambda: readers.looks > 0 or not readers.days, "a look", limit)
    assert not readers.wrong, readers.wrong[:5]
    all_right(days, chunks)
    datasets = build_datasets(load_settings())
    until(lambda: not any(datasets.stand_in_files(day) for day in days), "no stand-in left", limit)
    books = [world.first.books, world.second.books]
    assert settled().get("openai", 0) <= books[0].reported
    assert settled().get("azure", 0) <= books[1].reported
    times = books[0].billed + books[1].billed
    return {
        "deferred": deferred,
        "left_by_the_killed_daemon": left,
        "seconds_from_return_to_first_request": round(found, 1),
        "seconds_from_return_to_the_end": round(completed, 1),
        "seconds_at_the_end": round(time.monotonic() - done, 1),
        "texts_billed_again": sum(count - 1 for count in times.values()),
        "looks": readers.looks,
        "most_stand_ins_of_a_day": readers.most,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on-outage", choices=("defer", "degrade"), default="degrade")
    parser.add_argument("--calm", action="store_true", help="the daemon is not killed")
    parser.add_argument("--days", type=int, default=8)
    parser.add_argument("--chunks", type=int, default=40)
    parser.add_argument("--latency", type=float, default=0.3, help="seconds of one request")
    parser.add_argument("--limit", type=float, default=1200, help="seconds to wait for a step")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, process() as first, process() as second:
        os.environ |= {
            "OPENAI_API_KEY": KEY,
            "EMBEDDING_PIPELINE_CONFIG": str(Path(work) / "pipeline.yaml"),
            "DAGSTER_HOME": work,
            "PYTHONPATH": str(ROOT),
        }
        os.chdir(work)
        world = World(Path(work), first, second)
        days = world.prepare(options.on_outage, options.days, options.chunks, options.latency)
        try:
            print(json.dumps(prove(world, days, options.chunks, options.limit, calm=options.calm)))
        except BaseException:
            for log in Path(work).glob("*.log"):
                print(log.name, log.read_text()[-3000:], file=sys.stderr)
            raise


if __name__ == "__main__":
    main()
