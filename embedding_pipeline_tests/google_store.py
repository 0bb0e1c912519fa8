"""An emulator of Google Cloud Storage on loopback, which keeps objects in memory.

Belongs here: starting it for a session, and its fixtures. It knows no versions of objects and
cannot cancel an upload. A ``conftest`` imports the fixtures it wants.
"""

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from embedding_pipeline_tests.object_store import BUCKET
from embedding_pipeline_tests.ports import free_ports
from embedding_pipeline_tests.servers import await_ready, running, server_folder


@contextmanager
def emulator() -> Iterator[str]:
    """The server; yields its endpoint."""
    program = shutil.which("gcp-storage-emulator")
    if program is None:
        pytest.skip("the development dependency gcp-storage-emulator is not installed")
    (port,) = free_ports(1)
    command = [program, "start", "--host=127.0.0.1", f"--port={port}", "--in-memory"]
    with server_folder() as folder:
        log = folder / "log"
        with running([*command, f"--default-bucket={BUCKET}"], log, signal.SIGKILL) as server:
            await_ready(lambda: _listens(port), server, log)
            yield f"http://127.0.0.1:{port}"


def _listens(port: int) -> bool:
    """Its bucket is made before it listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[str]:
    """One emulator for the session; take ``gcs_bucket`` instead."""
    with emulator() as endpoint:
        yield endpoint


@pytest.fixture
def gcs_bucket(gcs_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of the test's own; clients find the way by Google's own variable."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks Google itself
    return f"gs://{BUCKET}/{os.urandom(8).hex()}"
