"""A model change under a real daemon and webserver, killed in the middle, with its runs.

Run with ``python -m benchmarks.daemon``; it takes some minutes, for Dagster looks around every
30 to 60 seconds. ``--arxiv FILE`` takes the listings of sixty days from a file of JSON lines.

Some days are embedded with one model, then the settings ask for another. While readers poll, the
sensor of a ``dagster-daemon`` builds the new space against the fake API in a process of its own;
in the midst of it, daemon and runs are killed (``--kill runs``), or the daemon alone, and a new
one is started. With ``--forget``, Dagster is made to forget the run that died. Fails unless
readers only ever saw one complete space, old then new; there is one backfill, and one bill but
for the texts in flight at the kill; the way back and forward costs no request; and 1536 → 512 →
1536 dimensions cost none, with every check green on every day.
"""

import argparse
import gzip
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import yaml
from sqlalchemy import func, select

import embedding_pipeline
from benchmarks.spaces import FIRST, write_source
from embedding_pipeline.assembly.parts import build_datasets, open_store
from embedding_pipeline.assembly.spaces import read_state
from embedding_pipeline.defs import launch
from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline.defs.orphans import end_orphans
from embedding_pipeline.errors import EmbeddingPipelineError
from embedding_pipeline.pipeline.checks import all_checks
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.state.schema import vectors
from embedding_pipeline_tests.defs.daemon import daemon, dagster, in_session, kill, until
from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.fake_openai.server import KEY

ROOT = Path(__file__).resolve().parents[1]
SENSOR = "model_change_sensor"
SMALL, VIEW, LARGE = 1536, 512, 3072
READERS = 2


@dataclass(frozen=True)
class Case:
    """What is tried.

    Attributes:
        folder: the project.
        days: the first and the last day.
        real: the texts are listings, not made up.
        kill: ``runs``, ``daemon`` or ``nothing``.
        forget: Dagster does not repeat the run by itself.
        limit: seconds to wait for a step.
    """

    folder: Path
    days: tuple[date, date]
    real: bool
    kill: str
    forget: bool
    limit: float

    @property
    def names(self) -> list[str]:
        """Every day."""
        first, last = self.days
        return [(first + timedelta(n)).isoformat() for n in range((last - first).days + 1)]

    def ask_for(self, model: str, dimensions: int | None = None) -> None:
        """Write the settings file."""
        fields = {"document_id": "doc_key", "project": "source"} if self.real else {}
        settings = {
            "data_dir": str(self.folder / "out"),
            "partitions": {"start_date": self.days[0]},
            "source": {
                "kind": "files",
                "path": str(self.folder / "data" / "{date}.jsonl"),
                "fields": fields,
            },
            "dedup": {"near": False},
            "embedding": {"model": f"openai/text-embedding-3-{model}", "dimensions": dimensions},
            "requests": {"target_tokens": 20_000},
        }
        (self.folder / "pipeline.yaml").write_text(yaml.safe_dump(settings))

    def served(self) -> tuple[int, int]:
        """Rows and length of the vectors that readers get."""
        table = embedding_pipeline.read_vectors(self.names[0], self.names[-1])
        return table.num_rows, table.schema.field("vector").type.list_size


class Reader(threading.Thread):
    """Polls ``read_vectors`` until told to stop; keeps what it saw, repeats left out."""

    def __init__(self, case: Case, stop: threading.Event) -> None:
        super().__init__()
        self.seen: list[object] = []
        self.polls = 0
        self._case = case
        self._stopping = stop

    def run(self) -> None:
        """Poll."""
        while not self._stopping.wait(1):
            found: object = "an error"  # which a reader must never meet
            with suppress(EmbeddingPipelineError):
                found = self._case.served()
            self.polls += 1
            if self.seen[-1:] != [found]:
                self.seen.append(found)


@contextmanager
def reading(case: Case) -> Iterator[list[Reader]]:
    """Readers that poll while the block lasts."""
    stop = threading.Event()
    readers = [Reader(case, stop) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    try:
        yield readers
    finally:
        stop.set()
        for reader in readers:
            reader.join()


@contextmanager
def webserver(case: Case) -> Iterator[int]:
    """Dagster's UI on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "dagster_webserver", "-w", "workspace.yaml", "-p", str(port)]
    with (
        (case.folder / "webserver.log").open("w") as log,
        subprocess.Popen(
            command, cwd=case.folder, stdout=log, stderr=log, start_new_session=True
        ) as running,
    ):
        try:
            yield port
        finally:
            kill(in_session(running.pid))


def backfills_in_ui(port: int) -> list[dict[str, object]]:
    """What the UI lists."""
    query = "{partitionBackfillsOrError{...on PartitionBackfills{results{id status title}}}}"
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        json.dumps({"query": query}).encode(),
        {"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as reply:
        results = json.load(reply)["data"]["partitionBackfillsOrError"]["results"]
    return list(results)


def all_green(case: Case) -> None:
    """Every check on every day, of what readers get now."""
    settings = load_settings()
    active = read_state(settings).active
    assert active is not None
    for day in case.names:
        verdicts = all_checks(build_datasets(settings), active.space, active.dimensions, day)
        failing = {name: it.description for name, it in verdicts.items() if not it.passed}
        assert not failing, (day, failing)


def stored() -> int:
    """Vectors in the cache, of any space."""
    with open_store(load_settings()) as store:
        return store.ask(lambda c: int(c.scalar(select(func.count()).select_from(vectors)) or 0))


def build(case: Case, api: FakeProcess) -> tuple[list[Reader], int]:
    """The change, with a crash in the middle; returns what readers saw, and texts in flight."""
    settings = load_settings()
    before, billed = stored(), api.books.inputs
    lost = 0

    def half_done() -> bool:
        return api.books.inputs - billed >= billed // 2 and api.books.in_flight > 0

    def promoted() -> bool:
        active = read_state(settings).active
        return active is not None and active.dimensions == LARGE

    with reading(case) as readers:
        if case.kill != "nothing":
            with daemon(case.folder) as running:
                until(half_done, "half of the build", case.limit)
                if case.kill == "daemon":
                    running.kill()
                    running.wait()
                    until(lambda: not in_session(running.pid), "the end of its runs", case.limit)
            until(lambda: api.books.in_flight == 0, "the last answers", case.limit)
            lost = (api.books.inputs - billed) - (stored() - before)
        if case.forget:
            forget(case)
        with daemon(case.folder):
            until(promoted, "the promotion", case.limit)
            seen = [reader.polls for reader in readers]
            until(
                lambda: all(r.polls > n + 1 for r, n in zip(readers, seen, strict=True)),
                "one more look of every reader",
                case.limit,
            )
    return readers, lost


def forget(case: Case) -> None:
    """As Dagster's daemon does when it reads a failure a moment too early: never repeat it."""
    with open_instance(load_settings(), case.folder) as instance:
        end_orphans(instance)
        latest = instance.event_log_storage.get_maximum_record_id()
        kinds = (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS)
        cursors = {f"EVENT_LOG_CONSUMER_CURSOR-{kind.value}": str(latest) for kind in kinds}
        assert instance.daemon_cursor_storage is not None
        instance.daemon_cursor_storage.set_cursor_values(cursors)


def prove(case: Case, api: FakeProcess) -> dict[str, object]:
    """All of it. Raises AssertionError."""
    days = case.names
    case.ask_for("small")
    first = launch.backfill(
        load_settings(), days[0], days[-1], partitions_per_run=len(days), home=case.folder
    )
    assert first.success, first.failed
    rows, texts = case.served()[0], api.books.inputs
    case.ask_for("large")
    dagster(case.folder, "sensor", "start", SENSOR)
    with webserver(case) as port:
        begun = time.perf_counter()
        readers, lost = build(case, api)
        seconds = time.perf_counter() - begun
        backfills = backfills_in_ui(port)
    for reader in readers:
        assert reader.seen == [(rows, SMALL), (rows, LARGE)], reader.seen
    with open_instance(load_settings(), case.folder) as instance:
        runs = [run.status.value for run in instance.get_runs()]
    books = api.books
    switches(case)
    return {
        "days": len(days),
        "chunks": rows,
        "texts": texts,
        "seconds": round(seconds, 1),
        "backfills": backfills,
        "runs": runs,
        "texts_in_flight_at_the_kill": lost,
        "texts_billed_again": sum(books.billed.values()) - 2 * len(books.billed),
        "requests_of_switches": api.books.requests - books.requests,
        "looks_of_readers": sum(reader.polls for reader in readers),
    }


def switches(case: Case) -> None:
    """Back and forward and back, then fewer dimensions and all of them, every check green."""
    spaces(case, "rollback", LARGE, SMALL)
    spaces(case, "promote", SMALL, LARGE)
    spaces(case, "rollback", LARGE, SMALL)
    case.ask_for("small", VIEW)
    spaces(case, "promote", VIEW, VIEW)
    case.ask_for("small")
    spaces(case, "promote", VIEW, SMALL)


def spaces(case: Case, command: str, before: int, after: int) -> None:
    """One of our commands, and what readers get before and after it."""
    assert case.served()[1] == before
    line = [sys.executable, "-c", "from embedding_pipeline.cli import main; main()"]
    subprocess.run([*line, "spaces", command], cwd=case.folder, check=True, capture_output=True)
    assert case.served()[1] == after
    all_green(case)


def write_listings(folder: Path, listings: Path) -> tuple[date, date]:
    """A file of chunks for each day of some listings; returns the first and the last day."""
    days: dict[str, list[str]] = {}
    with gzip.open(listings, "rt", encoding="utf-8") as lines:
        for line in lines:
            days.setdefault(json.loads(line)["date"], []).append(line)
    (folder / "data").mkdir()
    for day, found in days.items():
        (folder / "data" / f"{day}.jsonl").write_text("".join(found), encoding="utf-8")
    return date.fromisoformat(min(days)), date.fromisoformat(max(days))


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arxiv", type=Path, help="listings as gzipped JSON lines with a date")
    parser.add_argument("--days", type=int, default=60, help="days to make up, without --arxiv")
    parser.add_argument("--chunks", type=int, default=200, help="chunks of a day, without --arxiv")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds of one request")
    parser.add_argument("--limit", type=float, default=900, help="seconds to wait for a step")
    parser.add_argument("--kill", choices=("runs", "daemon", "nothing"), default="runs")
    parser.add_argument("--forget", action="store_true")
    parser.add_argument("--work", type=Path, help="an empty folder; a temporary one otherwise")
    return parser.parse_args()


def prepare(asked: argparse.Namespace, folder: Path, api: FakeProcess) -> Case:
    """The project, and the environment of it and of all that is started in it."""
    os.environ |= {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": api.base_url,
        "EMBEDDING_PIPELINE_CONFIG": str(folder / "pipeline.yaml"),
        "DAGSTER_HOME": str(folder),
        "PYTHONPATH": str(ROOT),
    }
    os.chdir(folder)
    for name in ("dagster.yaml", "workspace.yaml"):
        (folder / name).write_text((ROOT / name).read_text())
    api.option(latency=asked.latency)
    real = asked.arxiv is not None
    if not real:
        write_source(folder, asked.days, asked.chunks)
    days = (
        write_listings(folder, asked.arxiv) if real else (FIRST, FIRST + timedelta(asked.days - 1))
    )
    return Case(folder, days, real, asked.kill, asked.forget, asked.limit)


def main() -> None:
    """Try it, and say what was found. Raises AssertionError."""
    asked = options()
    with ExitStack() as stack:
        work = asked.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        api = stack.enter_context(process())
        case = prepare(asked, work, api)
        try:
            found = prove(case, api)
        except BaseException:
            print((work / "daemon.log").read_text()[-4000:], file=sys.stderr)
            raise
    print(json.dumps(found, default=str))
    assert len(found["backfills"]) == 1, "more than one backfill"  # type: ignore[arg-type]
    again, lost = found["texts_billed_again"], found["texts_in_flight_at_the_kill"]
    assert again <= lost, "more was billed again than was in flight"  # type: ignore[operator]
    assert found["requests_of_switches"] == 0, "a switch made requests"


if __name__ == "__main__":
    main()
