"""Running one client beside one fake API, each in a process of its own, with an end to it.

Belongs here: how much is asked, starting a client, waiting for it, ending it. Does not belong
here: what is measured (``scenarios``), what a client does (``clients``).
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Any

from embedding_pipeline_tests.fake_openai.process import FakeProcess, process

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.05
CHILD = "benchmarks.peers.child"
FOREIGN = ("OPENAI_", "AZURE_", "EMBEDDING_PIPELINE_", "LITELLM_", "LANGCHAIN_", "LANGSMITH_")


@dataclass(frozen=True)
class Row:
    """What came of one client in one scenario, once.

    Attributes:
        figures: by column; what was not found out is left out.
        note: what went otherwise than asked, or why there is nothing.
    """

    figures: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Size:
    """How much is asked.

    Attributes:
        chunks: texts of one run.
        growing: numbers of texts for G.
        streamed: further ones for ours alone, streamed.
        days: partitions for H.
    """

    chunks: int = 4_000
    growing: tuple[int, ...] = (10_000, 100_000)
    streamed: tuple[int, ...] = (300_000,)
    days: int = 30


@dataclass(frozen=True)
class Made:
    """How one run of a client ended.

    Attributes:
        count: vectors it handed over.
        cpu: CPU seconds of its own work.
        wall: seconds of it.
        peak_mb: the most memory it ever had.
        error: what it ended with; "" for well.
    """

    count: int = 0
    cpu: float = 0.0
    wall: float = 0.0
    peak_mb: float = 0.0
    error: str = ""


class TimeUp(Exception):
    """The time for all of it is over."""


class Bench:
    """Interpreters, sizes, servers, and the time there is.

    Args:
        pythons: the interpreter of each client.
        size: how much is asked.
        patience: seconds one run of a client may take.
        minutes: all of it may take; what is not done by then is left out.
        tables: where tiktoken finds its tables; "" lets it load them.
    """

    def __init__(
        self,
        pythons: dict[str, str],
        size: Size,
        patience: float = 120.0,
        minutes: float = 1e9,
        tables: str = "",
    ) -> None:
        self.size, self._tables = size, tables
        self._pythons, self._patience = pythons, patience
        self._end = time.monotonic() + 60 * minutes
        self._open = ExitStack()
        self._servers: dict[bool, FakeProcess] = {}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    @property
    def seconds_left(self) -> float:
        """Until what is not done is left out."""
        return max(self._end - time.monotonic(), 0.0)

    @contextmanager
    def stage(
        self, *, exact: bool = False, latency: float = 0.0
    ) -> Iterator[tuple[FakeProcess, str]]:
        """A server with empty books, and an empty folder.

        With ``exact``, every text has a vector of its own and its real tokens, which costs the
        server time; else a few vectors are served over and over, and tokens are bytes / 4.
        """
        if exact not in self._servers:
            options = () if exact else ("--precomputed",)
            self._servers[exact] = self._open.enter_context(process(*options))
        server = self._servers[exact]
        server.reset()
        server.option(latency=latency)
        with TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
            yield server, folder

    def start(
        self, client: str, server: FakeProcess, folder: str, count: int, **more: Any
    ) -> "Running":
        """Begin a run of a client; ``more`` are options of ``child``."""
        python = self._pythons["ours" if client.startswith("ours") else client]
        place = ["--base-url", server.base_url, "--folder", folder, "--count", str(count)]
        options = [f"--{name}={value}" for name, value in more.items() if value is not True]
        flags = [f"--{name}" for name, value in more.items() if value is True]
        keep = self._open.enter_context
        said, complaints = (keep(TemporaryFile("w+")) for _ in range(2))  # noqa: SIM115
        process = subprocess.Popen(
            [python, "-W", "ignore", "-m", CHILD, client, *place, *options, *flags],
            env=_environment(self._tables),
            cwd=ROOT,
            stdout=said,
            stderr=complaints,
            start_new_session=True,
        )
        running = Running(process, said, complaints)
        self._open.callback(running.close)
        return running

    def finish(self, running: "Running") -> Made:
        """Wait for it, as long as there is patience and time, and no longer.

        Raises:
            TimeUp: not the patience for this client, but all the time there was has passed.
        """
        patience = max(min(self._patience, self.seconds_left), 1.0)
        try:
            running.process.wait(patience)
        except subprocess.TimeoutExpired:
            if not self.seconds_left:
                raise TimeUp from None
            return Made(error=f"not done after {patience:.0f} s")
        finally:
            running.kill()
        if running.process.returncode:
            return Made(error=_reason(running.complaints, running.process.returncode))
        running.said.seek(0)
        found = json.loads(running.said.read().splitlines()[-1])
        return Made(found["made"], found["cpu"], found["wall"], found["peak_mb"], found["error"])

    def run(self, client: str, server: FakeProcess, folder: str, count: int, **more: Any) -> Made:
        """``start`` and ``finish``."""
        return self.finish(self.start(client, server, folder, count, **more))

    def until(self, holds: Callable[[], bool], running: "Running") -> bool:
        """Wait until something holds; False where the client ended or patience did before."""
        patience = time.monotonic() + min(self._patience, self.seconds_left)
        while time.monotonic() < patience and running.process.poll() is None:
            if holds():
                return True
            time.sleep(POLL_SECONDS)
        return False


@dataclass(frozen=True)
class Running:
    """A client at work, and the files that take what it says."""

    process: "subprocess.Popen[bytes]"
    said: IO[str]
    complaints: IO[str]

    @property
    def is_idle(self) -> bool:
        """Whether all of its threads wait for something; True where the system does not say."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        states = [_state(task) for task in tasks.glob("*/stat")]
        return all(state in ("S", "I", "") for state in states)

    def close(self) -> None:
        """Leave nothing behind, also where nobody waited for its end."""
        if self.process.poll() is None:
            self.kill()

    def kill(self) -> None:
        """End it and whatever it started; nothing where it has ended."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _state(task: Path) -> str:
    """The letter after the name in brackets; "" of a thread that has ended meanwhile."""
    try:
        return task.read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _reason(complaints: IO[str], code: int) -> str:
    complaints.seek(0)
    lines = complaints.read().strip().splitlines()
    return lines[-1][:120] if lines else f"ended with code {code}"


def _environment(tables: str) -> dict[str, str]:
    """What a client sees: nothing of the person's keys and addresses, and no way out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {
        **kept,
        **({"TIKTOKEN_CACHE_DIR": tables} if tables else {}),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HAYSTACK_TELEMETRY_ENABLED": "False",
    }
