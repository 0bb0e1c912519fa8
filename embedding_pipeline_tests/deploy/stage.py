"""A real cluster over a small project and the fake API, and what must hold of it afterwards.

Belongs here: the stage that the tests and ``benchmarks.cluster`` share. Every wait here is for
something to be seen, with a generous bound.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml

from deploy.cluster import Cluster, down, up
from embedding_pipeline.cli import budget
from embedding_pipeline.cli.books import ask
from embedding_pipeline.cli.plan import NOT_ALLOWED
from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline.ledger.queries import LedgerSum, sums
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline_tests.defs.books import CHECKS, check_statuses
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY

FIRST = date(2026, 1, 1)
MODEL = "text-embedding-3-small"
PROGRAM = (sys.executable, "-c", "from embedding_pipeline.cli import main; main()")
PATIENCE = 1800.0


@dataclass(frozen=True)
class Shape:
    """How much there is to do.

    Attributes:
        days: days with chunks.
        own: texts that only one day has.
        common: texts that every day has: runs at once ask for the same ones.
        capped: texts of a day that belong to a project with a budget.
        per_run: days in one run.
    """

    days: int
    own: int = 20
    common: int = 10
    capped: int = 5
    per_run: int = 3

    @property
    def names(self) -> list[str]:
        """The days."""
        return [(FIRST + timedelta(days=day)).isoformat() for day in range(self.days)]

    def texts(self, day: str) -> list[tuple[str, str]]:
        """Project and text of each chunk of a day."""
        own = [("open", f"text {n} that only {day} has, nothing else") for n in range(self.own)]
        common = [("open", f"text {n} that every day has") for n in range(self.common)]
        return own + common + [("capped", f"capped text {n} of {day}") for n in range(self.capped)]

    def distinct(self) -> set[str]:
        """Every text, of every project."""
        return {text for day in self.names for _, text in self.texts(day)}


@dataclass(frozen=True)
class Stage:
    """A project with its cluster and the fake API."""

    root: Path
    shape: Shape
    api: FakeProcess
    cluster: Cluster

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Our command, in the cluster's environment."""
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=self.root,
            env=self.cluster.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    @contextmanager
    def backfill(self) -> Iterator[subprocess.Popen[str]]:
        """The backfill of all days over the workers, under way."""
        days = self.shape.names
        command = ["backfill", "--queue", "--wait", "--json", "--start", days[0], "--end", days[-1]]
        with (self.root / "backfill.err").open("w") as said:
            running = subprocess.Popen(
                [*PROGRAM, *command],
                cwd=self.root,
                env=self.cluster.environment(),
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        with running:
            try:
                yield running
            finally:
                running.kill()

    def ended(self, running: "subprocess.Popen[str]", remedy: str = "") -> dict[str, Any]:
        """What a backfill says at its end.

        Raises AssertionError unless every day is done, but for what a budget has no room for;
        or, where there is a ``remedy``, says that.
        """
        out, _ = running.communicate(timeout=PATIENCE)
        said = (self.root / "backfill.err").read_text()
        assert running.returncode in (0, 1, NOT_ALLOWED), f"{out}\n{said}\n{self.logs()}"
        found = dict(json.loads(out))
        bad = {day: why for day, why in found["failed"].items() if "are deferred" not in why}
        if remedy:
            bad = {day: why for day, why in bad.items() if remedy not in why}
        made = {row["date"] for row in found["days"]} | set(found["failed"])
        assert not bad, f"{bad}\n{said}\n{self.logs()}"
        assert made == set(self.shape.names), f"{out}\n{said}\n{self.logs()}"
        return found

    def must(self, *arguments: str) -> str:
        """What our command prints. Raises AssertionError when it fails."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def without_budgets(self) -> None:
        """Somebody grants what the projects need."""
        path = self.root / "pipeline.yaml"
        settings = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump({**settings, "budgets": []}))

    def here(self) -> None:
        """A backfill of all days in this one process, as a person asks for it. All succeed."""
        first, last = self.shape.names[0], self.shape.names[-1]
        self.must("backfill", "--wait", "--start", first, "--end", last)

    @contextmanager
    def settings(self) -> Iterator[Settings]:
        """Those of the cluster's processes; this one is as one of them meanwhile."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.cluster.variables().items():
                patch.setenv(name, value)
            yield load_settings()

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Dagster's, as the cluster has it."""
        with self.settings() as settings, open_instance(settings) as opened:
            yield opened

    def booked(self) -> Sequence[LedgerSum]:
        """The ledger."""
        with self.settings() as settings:
            return ask(settings, sums) or []

    def unfinished(self, instance: dg.DagsterInstance) -> Iterator[tuple[str, str]]:
        """Each check and day whose last word is not that all is well; the last check first."""
        for asset, checks in reversed(CHECKS.items()):
            for check in checks:
                found = check_statuses(instance, asset, check, limit=10 * self.shape.days)
                for day in self.shape.names:
                    if found.get(day, [""])[0] != "SUCCEEDED":
                        yield check, day

    def workers(self) -> dict[str, int]:
        """The main process of each worker."""
        with self.cluster.supervisor() as supervisor:
            found = supervisor.getAllProcessInfo()
        return {it["name"]: int(it["pid"]) for it in found if it["group"] == "worker" and it["pid"]}

    def flying(self) -> set[int]:
        """The processes that have requests out, as the shared state says."""
        url = self.cluster.variables()["EMBEDDING_PIPELINE_STATE_URL"]
        with psycopg.connect(url) as connection:
            rows = connection.execute(
                "SELECT DISTINCT pid FROM owners JOIN flights ON owners.id = flights.owner_id"
            )
            return {int(pid) for (pid,) in rows}

    def cpu_seconds(self) -> float:
        """What every process of the cluster has used so far, those that ended included."""
        leader = int((self.cluster.folder / "supervisord.pid").read_text())
        return sum(map(_cpu_seconds, descendants(leader)))

    def logs(self) -> str:
        """The ends of all logs."""
        files = sorted((self.cluster.folder / "logs").glob("*.log"))
        return "\n".join(f"== {it.name}\n{it.read_text(errors='replace')[-1500:]}" for it in files)


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    with suppress(OSError):
        return [int(it) for it in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def descendants(pid: int) -> list[int]:
    """A process and all that it started, and they in turn."""
    return [pid, *(deeper for child in children(pid) for deeper in descendants(child))]


def _cpu_seconds(pid: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def until(done: Callable[[], bool], what: str, pause: float = 0.05) -> None:
    """Wait for something, and look every ``pause`` seconds. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took longer than {PATIENCE:.0f} s")
        time.sleep(pause)


def write_project(root: Path, shape: Shape, **more: Any) -> None:
    """Source files and settings."""
    (root / "data").mkdir(parents=True)
    for day in shape.names:
        rows = (
            json.dumps({"id": f"{day}-{number}", "project": project, "text": text})
            for number, (project, text) in enumerate(shape.texts(day))
        )
        (root / "data" / f"{day}.jsonl").write_text("\n".join(rows))
    settings = {
        "partitions": {"start_date": FIRST},
        "source": {"kind": "files", "path": str(root / "data" / "{date}.jsonl")},
        "dedup": {"near": False},
        "embedding": {"model": f"openai/{MODEL}"},
        "requests": {"max_inputs": 10},
        "limits": {"max_in_flight": 4},
        "spaces": {"partitions_per_run": shape.per_run},
        **more,
    }
    (root / "pipeline.yaml").write_text(yaml.safe_dump(settings))


@contextmanager
def staged(
    root: Path, shape: Shape, api: FakeProcess, cluster: Cluster, **more: Any
) -> Iterator[Stage]:
    """The cluster, up; taken down in the end. Settings and key go by the environment."""
    write_project(root, shape, **more)
    stage = Stage(root, shape, api, cluster)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", KEY)
        patch.setenv("OPENAI_BASE_URL", api.base_url)
        patch.setenv("EMBEDDING_PIPELINE_CONFIG", str(root / "pipeline.yaml"))
        try:
            up(stage.cluster)
            yield stage
        finally:
            down(stage.cluster)
            shutil.rmtree(cluster.sockets, ignore_errors=True)


def kill(*pids: int) -> None:
    """Without a word."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def must_keep(stage: Stage) -> None:
    """Limits and budgets, at any time after a backfill. Raises AssertionError."""
    books = stage.api.books
    assert books.statuses["429"] == 0, books.statuses
    with stage.settings() as settings:
        budgets, _ = budget.read(settings)
    for one in budgets:
        assert one["spent_nano_usd"] <= one["limit_nano_usd"], one
        assert one["reserved_nano_usd"] == 0, one


def must_hold(stage: Stage, billed_again: int = 0) -> dict[str, Any]:
    """Limits, single flight and conservation, once every day is whole. Raises AssertionError.

    Args:
        stage: after a backfill.
        billed_again: texts that may have been billed twice: what was in flight at kills.
    """
    must_keep(stage)
    books, shape = stage.api.books, stage.shape
    missing = [text for text in shape.distinct() if not books.times_billed(text)]
    assert not missing, missing[:3]
    assert books.billed_twice <= billed_again, f"{books.billed_twice} texts were billed again"
    with stage.instance() as instance:
        unfinished = list(stage.unfinished(instance))
    assert not unfinished, unfinished
    entries = stage.booked()
    booked = sum(entry.cost_nano_usd for entry in entries)
    assert booked >= books.cost_nano_usd, "something was billed that is in no book"
    return {
        "texts": len(shape.distinct()),
        "requests": books.requests,
        "billed_again": books.billed_twice,
        "most_in_flight": books.most_in_flight,
        "waited_seconds": round(sum(entry.wait_ms for entry in entries) / 1000),
        "booked_nano_usd": booked,
        "unknown_nano_usd": sum(entry.unknown_nano_usd for entry in entries),
        "billed_nano_usd": books.cost_nano_usd,
    }
