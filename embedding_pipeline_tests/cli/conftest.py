"""The command line as a person meets it: a process, a folder, two streams and an exit code."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedding_pipeline_tests.fake_openai.fixtures import fake_openai

__all__ = ["fake_openai"]

PROGRAM = (sys.executable, "-c", "from embedding_pipeline.cli import main; main()")
SECONDS = 600


@dataclass(frozen=True)
class Folder:
    """A working directory with, perhaps, a settings file in it."""

    path: Path

    def settings(self, **settings: Any) -> "Folder":
        """Write ``pipeline.yaml``."""
        (self.path / "pipeline.yaml").write_text(yaml.safe_dump(settings))
        return self

    def rows(self, day: str, *texts: str) -> None:
        """Write one day of a files source."""
        lines = (
            json.dumps({"id": f"{day}-{number}", "text": text, "project": "tests"})
            for number, text in enumerate(texts)
        )
        file = self.path / "data" / f"{day}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(lines))

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the program here, as a user would."""
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=self.path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    @contextmanager
    def start(self, *arguments: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
        """The program under way; ended at the end of the block if it has not by itself."""
        running = subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=self.path,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        with running:
            try:
                yield running
            finally:
                running.kill()

    def json(self, *arguments: str) -> Any:
        """What the program prints with ``--json``."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


BUS = "A red bus drives through the town."
FILES = {
    "source": {"kind": "files", "path": "data/{date}.jsonl"},
    "partitions": {"start_date": "2026-01-01"},
}
"""Settings of a files source in the folder."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty working directory, whose commands run in this process."""
    from embedding_pipeline_tests.cli.inside import InsideFolder

    return InsideFolder(tmp_path)


@pytest.fixture
def outside(tmp_path: Path) -> Folder:
    """The same, whose commands are processes, where that is the point."""
    return Folder(tmp_path)


@pytest.fixture
def done(three_days: Folder, tmp_path: Path) -> Folder:
    """A folder of the test's own in which three days were embedded with the local model."""
    from embedding_pipeline_tests.cli.inside import InsideFolder

    return InsideFolder(Path(shutil.copytree(three_days.path, tmp_path / "done")))


@pytest.fixture(scope="session")
def three_days(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """What ``done`` is copied from: nothing else may touch it, since tests come in any order."""
    folder = Folder(tmp_path_factory.mktemp("three-days")).settings(**FILES)
    folder.rows("2026-01-01", "The cat sleeps on the sofa.", "How to parse a date.", BUS)
    folder.rows("2026-01-02", "Stocks fell on Monday.", "STOCKS  fell on monday.")
    folder.rows("2026-01-03", BUS, "word " * 9000)
    result = folder.run("backfill", "--start", "2026-01-01", "--end", "2026-01-03", "--wait")
    assert result.returncode == 0, result.stderr
    return folder


Expect = Callable[[subprocess.CompletedProcess[str], int], str]


@pytest.fixture
def refused() -> Expect:
    """Check that a command ended with a code and a message, and give the message."""

    def check(result: subprocess.CompletedProcess[str], code: int) -> str:
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stdout + result.stderr
        assert result.stderr.strip()
        return result.stderr

    return check
