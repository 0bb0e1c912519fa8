"""What ``make`` says when the machine is not as it should be, in a folder with a space in it."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

STAMPS = ("python", "packages", "run")
"""Oldest first: what ``make`` takes as proof that .venv is set up."""


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """The Makefile and what it depends on, without an environment."""
    place = tmp_path / "a checkout"
    place.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(repository / name, place / name)
    return place


def _make(checkout: Path, *arguments: str, path: str | None = None) -> str:
    """What a target that must not succeed says on standard error."""
    make = shutil.which("make")
    assert make is not None
    done = subprocess.run(
        [make, *arguments],
        cwd=checkout,
        env={**os.environ, "PATH": path or os.environ["PATH"], "PYTHON": "python3"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


def _program(place: Path, content: str) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"#!/bin/sh\n{content}\n")
    place.chmod(0o755)


@pytest.mark.parametrize("target", ["demo", "test", "ui"])
def test_an_old_python_is_named_with_what_is_needed(checkout: Path, target: str) -> None:
    tools = checkout / "tools"
    tools.mkdir()
    (tools / "sh").symlink_to(shutil.which("sh") or "/bin/sh")
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        _program(tools / name, "exit 1")
    told = _make(checkout, target, path=str(tools))
    assert "Python 3.11 to 3.14 is needed, and 'python3' is not that" in told
    assert "make PYTHON=/path/to/python3.12" in told
    assert not (checkout / ".venv").exists()


def test_a_port_that_is_taken_is_told_before_anything_starts(checkout: Path) -> None:
    _program(checkout / ".venv" / "bin" / "python", f'exec "{sys.executable}" "$@"')
    _program(checkout / ".venv" / "bin" / "dagster", "echo Traceback >&2; exit 1")
    files = ["pyproject.toml", "requirements.lock", *(f".venv/{name}.stamp" for name in STAMPS)]
    for age, name in enumerate(files):
        (checkout / name).touch()
        os.utime(checkout / name, (age, age))
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        told = _make(checkout, "ui", f"UI_PORT={port}")
    assert told.startswith(f"Port {port} cannot be had; choose another: make ui UI_PORT=3001\n")
