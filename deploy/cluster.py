"""A whole deployment on one machine, without root and without containers: ``make cluster``.

Belongs here: starting it in the right order, stopping it, and telling how it is; supervisor
keeps the processes. Does not belong here: what a server or Dagster is told (``servers``,
``dagster.yaml``, ``supervisord.conf``).

Everything it keeps is in ``.embedding_pipeline/cluster`` of the working directory. Only the
web server listens, on loopback; the others on UNIX sockets in a folder of the owner's, whose
name has to be short and which is therefore made below the folder for temporary files.
"""

import argparse
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xmlrpc.client import Fault, ServerProxy

FOLDER: Final = Path(".embedding_pipeline") / "cluster"
HERE: Final = Path(__file__).resolve().parent
DATABASES: Final = ("dagster", "embedding_pipeline")
PATIENCE_SECONDS: Final = 600.0
STOP_SECONDS: Final = 600.0


@dataclass(frozen=True)
class Cluster:
    """One cluster.

    Attributes:
        project: the folder with ``pipeline.yaml``; the working directory of every process.
        port: of the web server, on loopback; None: there is none.
        workers: Celery workers.
        runs_per_worker: runs that one of them does at the same time.
    """

    project: Path
    port: int | None = 3000
    workers: int = 3
    runs_per_worker: int = 3

    @property
    def folder(self) -> Path:
        """Where it keeps everything."""
        return self.project / FOLDER

    @property
    def sockets(self) -> Path:
        """Where its servers listen."""
        name = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:8]
        return Path(tempfile.gettempdir()) / f"ep-{os.getuid()}-{name}"

    @property
    def database(self) -> str:
        """PostgreSQL's address, without driver and database."""
        return f"postgres@/{{database}}?host={self.sockets}"

    def variables(self) -> dict[str, str]:
        """What settings and Dagster read in every process of the cluster."""
        dagster, ours = (self.database.format(database=name) for name in DATABASES)
        redis = self.sockets / "redis.sock"
        return {
            "DAGSTER_HOME": str(self.folder / "home"),
            "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://{dagster}",
            "DAGSTER_BROKER_URL": f"redis+socket://{redis}?virtual_host=1",
            "EMBEDDING_PIPELINE_STATE_URL": f"postgresql://{ours}",
            "EMBEDDING_PIPELINE_REDIS_URL": f"unix://{redis}?db=0",
        }

    def environment(self) -> dict[str, str]:
        """The same, with what ``supervisord.conf`` asks for."""
        path = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
        own = {
            "EP_CLUSTER": str(self.folder),
            "EP_SOCKETS": str(self.sockets),
            "EP_PYTHON": shlex.quote(sys.executable),
            "EP_UI_PORT": str(self.port or 0),
            "EP_WORKERS": str(self.workers),
            "EP_RUNS_PER_WORKER": str(self.runs_per_worker),
            "PYTHONPATH": path,
            "PYTHONWARNINGS": "ignore",
        }
        return {**os.environ, **self.variables(), **own}

    @contextmanager
    def supervisor(self) -> Iterator[Any]:
        """Supervisor's interface, over its socket."""
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self.sockets}/supervisor.sock")
        try:
            yield ServerProxy("http://127.0.0.1", transport=transport).supervisor
        finally:
            transport.close()

    def is_up(self) -> bool:
        """Whether its supervisor answers."""
        try:
            with self.supervisor() as supervisor:
                return bool(supervisor.getState()["statename"])
        except (OSError, Fault):
            return False


def up(cluster: Cluster) -> None:
    """Start what is not running, and wait until it works."""
    prepare(cluster)
    if not cluster.is_up():
        begin(cluster)
    _await(cluster, lambda: servers_answer(cluster), "PostgreSQL and Redis")
    make_databases(cluster)
    print(run(cluster, "-m", "deploy.schemas"), end="")
    names = ["worker:*", "daemon"] + ([] if cluster.port is None else ["webserver"])
    for name in names:
        start(cluster, name)
    if cluster.port is not None:
        _await(cluster, lambda: ui_answers(cluster), "the web server")
    _await(cluster, lambda: all_run(cluster), "every process")
    _await(cluster, lambda: daemon_works(cluster), "the daemon's first heartbeat")


def prepare(cluster: Cluster) -> None:
    """Folders and files; those of Dagster are written anew from ``deploy`` each time."""
    home = cluster.folder / "home"
    for folder in (home, cluster.folder / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    cluster.folder.chmod(0o700)
    private(cluster.sockets)
    shutil.copy(HERE / "dagster.yaml", home / "dagster.yaml")
    shutil.copy(HERE.parent / "workspace.yaml", home / "workspace.yaml")
    lines = [f"export {key}={shlex.quote(it)}\n" for key, it in cluster.variables().items()]
    (cluster.folder / "env").write_text("".join(lines))


def private(folder: Path) -> None:
    """Make a folder that nobody else can enter, or be sure that it is one. Raises SystemExit."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o077 or not folder.is_dir():
            raise SystemExit(f"{folder} is not a private folder of this user; remove it") from None


def begin(cluster: Cluster) -> None:
    """Start supervisor, which starts the servers and stays in the background."""
    configuration = str(HERE / "supervisord.conf")
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", configuration]
    done = subprocess.run(
        command,
        cwd=cluster.project,
        env=cluster.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"supervisor did not start:\n{done.stdout}{done.stderr}")
    _await(cluster, cluster.is_up, "supervisor")


def run(cluster: Cluster, *arguments: str) -> str:
    """What a command of Python's says in the cluster. Raises SystemExit when it fails."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cluster.project,
        env=cluster.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments[1:])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def servers_answer(cluster: Cluster) -> bool:
    """Whether both take requests."""
    import psycopg
    from redis import Redis
    from redis.exceptions import RedisError

    try:
        with psycopg.connect(f"postgresql://{cluster.database.format(database='postgres')}"):
            pass
        with Redis(unix_socket_path=str(cluster.sockets / "redis.sock")) as redis:
            return bool(redis.ping())
    except (psycopg.OperationalError, RedisError):
        return False


def make_databases(cluster: Cluster) -> None:
    """One for Dagster and one for the pipeline's state, on the same server."""
    import psycopg

    where = f"postgresql://{cluster.database.format(database='postgres')}"
    with psycopg.connect(where, autocommit=True) as connection:
        rows = connection.execute("SELECT datname FROM pg_database").fetchall()
        for name in DATABASES:
            if (name,) not in rows:
                connection.execute(f"CREATE DATABASE {name}")


def start(cluster: Cluster, name: str) -> None:
    """Start a program, or all of a group, unless it runs."""
    group, _, every = name.partition(":")
    try:
        with cluster.supervisor() as supervisor:
            begin_it = supervisor.startProcessGroup if every else supervisor.startProcess
            begin_it(group, False)
    except Fault as fault:
        if "ALREADY_STARTED" not in fault.faultString:
            raise SystemExit(f"{name} does not start: {fault.faultString}") from fault


def states(cluster: Cluster) -> Mapping[str, str]:
    """Every process with what supervisor says of it."""
    with cluster.supervisor() as supervisor:
        found = supervisor.getAllProcessInfo()
    return {_full_name(it["group"], it["name"]): it["statename"] for it in found}


def _full_name(group: str, name: str) -> str:
    return name if group == name else f"{group}:{name}"


def all_run(cluster: Cluster) -> bool:
    """Whether every process that was started has stayed."""
    return set(states(cluster).values()) <= {"RUNNING", "STOPPED"}


def daemon_works(cluster: Cluster) -> bool:
    """Whether the part of the daemon that does backfills has been heard of lately."""
    import psycopg

    late = "timestamp > (now() AT TIME ZONE 'utc') - interval '90 seconds'"
    query = f"SELECT 1 FROM daemon_heartbeats WHERE daemon_type = 'BACKFILL' AND {late}"
    with psycopg.connect(f"postgresql://{cluster.database.format(database='dagster')}") as it:
        return it.execute(query).fetchone() is not None


def ui_answers(cluster: Cluster) -> bool:
    """Whether the web server does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{cluster.port}/server_info", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


def down(cluster: Cluster) -> None:
    """Stop everything: daemon, web server, workers, then the servers. What is kept stays."""
    if not cluster.is_up():
        return
    with cluster.supervisor() as supervisor:
        supervisor.shutdown()
    _await(cluster, lambda: has_ended(cluster), "the end of every process", STOP_SECONDS)


def has_ended(cluster: Cluster) -> bool:
    """Whether supervisor is gone: it stops answering first, and takes its file away last."""
    return not cluster.is_up() and not (cluster.folder / "supervisord.pid").exists()


def _await(
    cluster: Cluster, done: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS
) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} took longer than {seconds:.0f} s; see {cluster.folder}/logs")
        time.sleep(0.2)


def told(cluster: Cluster) -> str:
    """What is running, in words."""
    if not cluster.is_up():
        return "The cluster is not running."
    return "\n".join(f"{state:9} {name}" for name, state in sorted(states(cluster).items()))


def main() -> None:
    parser = argparse.ArgumentParser(description="A deployment on one machine.")
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("--port", type=int, default=3000, help="of the web server")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--runs-per-worker", type=int, default=3)
    given = parser.parse_args()
    cluster = Cluster(Path.cwd(), given.port, given.workers, given.runs_per_worker)
    if given.command == "down":
        down(cluster)
    if given.command == "up":
        up(cluster)
        print(f"The cluster runs: http://127.0.0.1:{cluster.port}")
        print(f"For commands of your own: . {shlex.quote(str(FOLDER / 'env'))}")
    else:
        print(told(cluster))


if __name__ == "__main__":
    main()
