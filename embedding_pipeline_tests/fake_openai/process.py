"""The server in a process of its own, seen from outside."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedding_pipeline_tests.fake_openai.books import Books
from embedding_pipeline_tests.fake_openai.faults import Fault, schedule_to_json

ROOT = Path(__file__).resolve().parents[2]
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class FakeProcess:
    """The same controls as ``FakeOpenAI``, over the control endpoints. Blocks."""

    port: int

    @property
    def base_url(self) -> str:
        """What a client is to be given."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def books(self) -> Books:
        """The books at this moment."""
        return Books.from_json(self._call("_books"))

    @property
    def batches(self) -> dict[str, int]:
        """Batches ever made, files there are now, most tokens in unfinished batches."""
        return dict(json.loads(self._call("_batches")))

    def fault(self, *faults: Fault, seed: int = 0) -> None:
        """Replace the faults; none ends them."""
        self._call("_faults", schedule_to_json(faults, seed))

    def limit(self, **limits: Any) -> None:
        """Replace the limits with full buckets; see ``Limits``."""
        self._call("_limits", json.dumps(limits).encode())

    def option(self, **options: Any) -> None:
        """Change ``Options``."""
        self._call("_options", json.dumps(options).encode())

    def batch_option(self, **options: Any) -> None:
        """Change ``BatchOptions``, until the next reset."""
        self._call("_batches", json.dumps(options).encode())

    def reset(self) -> None:
        """New books, no faults, no limits."""
        self._call("_reset", b"")

    def _call(self, path: str, data: bytes | None = None) -> bytes:
        with _OPENER.open(f"http://127.0.0.1:{self.port}/{path}", data, timeout=300) as reply:
            return bytes(reply.read())


@contextmanager
def process(*arguments: str) -> Iterator[FakeProcess]:
    """Run ``python -m embedding_pipeline_tests.fake_openai`` while the context lasts."""
    command = [sys.executable, "-m", "embedding_pipeline_tests.fake_openai", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            yield FakeProcess(int(running.stdout.readline()))
        finally:
            running.terminate()
            try:
                running.wait(10)
            except subprocess.TimeoutExpired:
                running.kill()
