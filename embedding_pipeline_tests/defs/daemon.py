"""A real ``dagster-daemon`` beside a test or a benchmark, and its sudden death.

Belongs here: starting it with its runs in one session, killing them, waiting for a state.
Does not belong here: what is expected of it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE = 600.0
"""Seconds; an upper bound for a busy machine, not what anything takes."""


def dagster(folder: Path, *arguments: str) -> None:
    """One of Dagster's own commands in a project's folder. Raises CalledProcessError."""
    command = [sys.executable, "-m", "dagster", *arguments, "-w", "workspace.yaml"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@contextmanager
def daemon(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon with its runs in one session; leaving the block kills all of it, unasked."""
    with (
        (folder / "daemon.log").open("a") as log,
        subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", "-w", "workspace.yaml"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        ) as running,
    ):
        try:
            yield running
        finally:
            kill(in_session(running.pid))


def kill(pids: list[int]) -> None:
    """SIGKILL each, as it comes."""
    for pid in pids:
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


def until(done: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a state. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took longer than {seconds:.0f} s")
        time.sleep(0.2)
