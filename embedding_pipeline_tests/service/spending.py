"""Many processes on one budget, some killed, with somebody watching all along."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlalchemy import func, select

from embedding_pipeline.clock import SystemClock
from embedding_pipeline.ledger.standing import Standing
from embedding_pipeline.state import schema
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.service.harness import PRICE
from embedding_pipeline_tests.service.spender import Job

TOKENS = 40
"""Of each text."""


@dataclass
class Outcome:
    """What came of it. Amounts are tokens.

    Attributes:
        limit: the budget.
        most: the highest sum of spent and reserved that was ever seen.
        looks: how often somebody looked.
        spent, reserved: in the end.
        settled, unknown: of it, by outcome.
        billed: what the provider billed.
        ends: texts by how they ended, of the processes that lived.
        seconds: wall time.
    """

    limit: int
    most: int = 0
    looks: int = 0
    spent: int = 0
    reserved: int = 0
    settled: int = 0
    unknown: int = 0
    billed: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


class Watcher:
    """Reads the standing as fast as it can, in a thread of its own."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.most = self.looks = 0

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        with Store(self._job.url, SystemClock()) as store:
            while not self._end.is_set():
                now = standing(store, self._job)
                self.most = max(self.most, now.spent_nano + now.reserved_nano)
                self.looks += 1
                time.sleep(0.004)


def standing(store: Store, job: Job) -> Standing:
    """Where the budget stands."""
    now = int(time.time() * 1000)
    (found,) = store._transact(lambda c: job.budgets.standings(c, now), False)
    return found


def spend(
    url: str, folder: Path, *, processes: int, workers: int, texts: int, kill: bool
) -> Outcome:
    """Let all of them spend a budget for a tenth of their work.

    With ``kill``, every second one waits for answers to billed requests, and is killed with
    SIGKILL while the others spend; then one more comes, finds them dead, and goes on with what
    they left.
    """
    limit = processes * workers * texts * TOKENS // 10
    job = Job(url, str(folder / "bill"), "", workers, texts, limit)
    began = time.monotonic()
    jobs = [replace(job, name=f"p{number}") for number in range(processes)]
    doomed = jobs[::2] if kill else []
    with Store(url, SystemClock()) as store, Watcher(job) as watcher:
        struck = [_stuck(one, folder) for one in doomed]
        spenders = [_start(one) for one in jobs if one not in doomed]
        for one in spenders:
            _say(one, "go")
        if kill:
            _until(lambda: standing(store, job).spent_nano >= limit * PRICE // 8)
        for one in struck:
            one.kill()
            one.communicate()
        ends = [_end(one) for one in spenders]
        if kill:
            again = _start(jobs[0])
            _say(again, "go")
            ends.append(_end(again))
        now = standing(store, job)
        sums = _sums(store)
    return Outcome(
        limit,
        most=watcher.most // PRICE,
        looks=watcher.looks,
        spent=now.spent_nano // PRICE,
        reserved=now.reserved_nano // PRICE,
        settled=sums.get("settled", 0),
        unknown=sums.get("unknown", 0),
        billed=sum(map(int, (folder / "bill").read_text().split())),
        ends={name: sum(end[name] for end in ends) for name in ends[0]},
        seconds=time.monotonic() - began,
    )


def _sums(store: Store) -> dict[str, int]:
    c = schema.ledger.c
    query = select(c.outcome, func.sum(c.tokens)).group_by(c.outcome)
    rows = store._transact(lambda connection: connection.execute(query).all(), False)
    return {str(outcome): int(tokens) for outcome, tokens in rows}


def _start(job: Job) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "embedding_pipeline_tests.service.spender", str(job)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "open"
    return process


def _stuck(job: Job, folder: Path) -> "subprocess.Popen[str]":
    """Start a process, and wait until a request of its is billed that will not be answered."""
    mark = folder / f"stuck-{job.name}"
    process = _start(replace(job, stuck=str(mark)))
    _say(process, "go")
    _until(mark.exists)
    return process


def _say(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def _end(process: "subprocess.Popen[str]") -> dict[str, int]:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    found: dict[str, int] = json.loads(out)
    return found


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
