"""What is installed: the bill of materials is whole, and an audit is never silently none."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from deploy.audit import NOT_AUDITED, WEAK, Verdict, main, verdict
from deploy.sbom import LOCK, bill, unlicensed
from embedding_pipeline_tests.test_packaging import PIN

DECLARE_NONE = {"antlr4-python3-runtime", "protobuf", "supervisor"}
"""Packages whose metadata names no licence in a form that can be read."""


def _pins(lock: Path) -> set[str]:
    pins = (PIN.fullmatch(line) for line in lock.read_text().splitlines())
    return {f"pkg:pypi/{canonicalize_name(pin['name'])}@{pin['version']}" for pin in pins if pin}


def _is_here(purl: str) -> bool:
    name, _, pinned = purl.removeprefix("pkg:pypi/").partition("@")
    try:
        return version(name) == pinned
    except PackageNotFoundError:
        return False


def test_the_bill_lists_every_locked_package_with_its_licence(repository: Path) -> None:
    found = bill(LOCK, repository / "pyproject.toml")
    parts = found["components"]
    assert {part["purl"] for part in parts} == _pins(LOCK)
    assert all(part["purl"].endswith(f"@{part['version']}") for part in parts)
    assert all(part["externalReferences"][0]["hashes"] for part in parts)
    assert found["metadata"]["component"]["name"] == "embedding-pipeline"
    silent = {purl.split("/")[1].split("@")[0] for purl in unlicensed(found) if _is_here(purl)}
    assert silent <= DECLARE_NONE


@contextmanager
def osv(weak: Mapping[str, list[Any]]) -> Iterator[str]:
    """A database on loopback that knows of these weaknesses."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name upstream
            pass

        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found = weak.get(query["package"]["name"])
            body = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def test_an_audit_finds_what_is_known_and_says_when_nobody_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text(
        "".join(f"{pin} \\\n    --hash=sha256:{'0' * 64}\n" for pin in ("one==1.0", "two==2.0"))
    )
    fixed = {"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}]}
    package = {"package": {"name": "two", "ecosystem": "PyPI"}}
    known = [{"id": "OSV-1", "summary": "weak", "affected": [{**package, **fixed}]}]
    with osv({"two": known}) as url:
        assert main([f"--osv-url={url}", str(lock)]) == WEAK
    assert "WEAK two 2.0: OSV-1, mended in 2.1" in capsys.readouterr().out
    with osv({}) as url:
        assert main([f"--osv-url={url}", str(lock)]) == 0
    assert main([f"--osv-url={url}", str(lock)]) == NOT_AUDITED
    said = capsys.readouterr().out
    assert "2 packages looked up, 0 with a known weakness" in said
    assert "NOT AUDITED, the database of weaknesses does not answer" in said


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("", NOT_AUDITED),
        ('{"dependencies": []}', NOT_AUDITED),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', NOT_AUDITED),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0),
    ],
)
def test_a_package_nobody_looked_up_is_not_safe(output: str, code: int) -> None:
    assert verdict(output, "").exit_code == code


def test_silence_is_told_by_its_last_line() -> None:
    assert verdict("", "a traceback\nno route").silence == "no route"
    assert Verdict(weak=("x",), unknown=("y",)).exit_code == WEAK
