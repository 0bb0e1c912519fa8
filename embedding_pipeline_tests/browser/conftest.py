"""A project with a few days of chunks, Dagster's webserver and daemon over it, and Chromium.

Without a Chromium on this machine the tests here are skipped. With ``SCREENSHOTS=<folder>`` in
the environment the pictures of the documentation are written there.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, Page, sync_playwright

from embedding_pipeline_tests.defs.conftest import copy_instance, write_day
from embedding_pipeline_tests.defs.daemon import in_session, kill
from embedding_pipeline_tests.fake_openai.fixtures import fake_openai_server  # noqa: F401 - fixture
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY
from embedding_pipeline_tests.ports import free_ports

CHROMIUM = ("--no-sandbox", "--disable-dev-shm-usage")
"""It runs as root in a container, where shared memory may be small."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TODAY = datetime.now(UTC).date()
DAYS = tuple(str(TODAY - timedelta(days=back)) for back in (4, 3, 2, 1, 0))
"""All partitions there are, and today, which becomes one at midnight: the UI offers those of the
last months."""

PATIENCE = 600
"""Seconds until something on a page, or in a run, must have come; it ends when it comes."""


@dataclass(frozen=True)
class Site:
    """The project, and where its UI is."""

    root: Path
    url: str
    environment: dict[str, str]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``python -m …`` in the project's folder."""
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    fake_openai_server: FakeProcess,  # noqa: F811
) -> Iterator[Site]:
    """``dagster dev`` over four days of chunks, with an empty history."""
    root = tmp_path_factory.mktemp("ui")
    fake_openai_server.reset()
    settings = {
        "partitions": {"start_date": DAYS[0]},
        "source": {"kind": "files", "path": "data/{date}.jsonl"},
        "embedding": {"model": "openai/text-embedding-3-small", "dimensions": 64},
    }
    (root / "pipeline.yaml").write_text(yaml.safe_dump(settings))
    copy_instance(Path(__file__).resolve().parents[2], root)
    for day in DAYS:
        write_day(root / "data" / f"{day}.jsonl", day)
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(root),
        "OPENAI_BASE_URL": fake_openai_server.base_url,
        "OPENAI_API_KEY": KEY,
    }
    (port,) = free_ports(1)
    made = Site(root, f"http://127.0.0.1:{port}", environment)
    with (root / "dev.log").open("w") as log:
        command = ["dagster", "dev", "--workspace", "workspace.yaml", "--host", "127.0.0.1"]
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)],
            cwd=root,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _until_it_listens(port, process, root / "dev.log")
            yield made
        finally:
            _end(process)


def _until_it_listens(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text()[-3000:])


def _end(process: "subprocess.Popen[bytes]") -> None:
    """All of it, unasked: nothing here is needed again."""
    kill(in_session(process.pid))
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a screen."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=list(CHROMIUM))
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new window of 1,400 by 900 pixels that waits long for what it is told to find."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(PATIENCE * 1000)
    yield context.new_page()
    context.close()
