"""What happens to the cluster while it works.

Belongs here: each scene with its surroundings, its misfortune, and what may come of it.
Does not belong here: the backfill, and what must hold after it (``__main__``).
"""

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from deploy.cluster import servers_answer
from embedding_pipeline_tests.deploy.stage import Stage, children, kill, until

SMALL_DISK: Final = "EP_SMALL_DISK"
"""Names the folder that is a file system of its own; set by ``small_disk``."""

AWAY_SECONDS: Final = 20.0
"""How long the object store refuses, or PostgreSQL is not there."""

RESTARTS: Final = 3
"""How often PostgreSQL is killed besides; supervisor starts it again at once."""


def nothing(_stage: Stage) -> int:
    """Nothing happens; no text may be billed again."""
    return 0


@dataclass(frozen=True)
class Scene:
    """One misfortune.

    Attributes:
        strike: lets it happen; returns how many texts may be billed again for it.
        settings: of the project.
        remedy: what days that fail have to say; empty: none may fail.
        mend: what a person does then, before the backfill is asked for again.
    """

    strike: Callable[[Stage], int] = nothing
    settings: Mapping[str, Any] = field(default_factory=dict)
    remedy: str = ""
    mend: Callable[[], None] = lambda: None


@contextmanager
def calm() -> Iterator[Scene]:
    """Nothing happens."""
    yield Scene()


@contextmanager
def killed() -> Iterator[Scene]:
    """A worker with its runs is killed while requests are out."""

    def strike(stage: Stage) -> int:
        busy = the_busy_worker(stage)
        runs = children(busy)
        kill(busy, *runs)
        return in_flight_of(len(runs))

    yield Scene(strike)


@contextmanager
def postgres() -> Iterator[Scene]:
    """PostgreSQL is killed without a word again and again, and is away for a while once."""

    def strike(stage: Stage) -> int:
        for number in range(1, 1 + RESTARTS):
            await_share(stage, number / (2 + RESTARTS))
            with stage.cluster.supervisor() as supervisor:
                supervisor.signalProcess("postgres", "KILL")
            until(lambda: servers_answer(stage.cluster), "PostgreSQL", 0.2)
        await_share(stage, 1 - 1 / (2 + RESTARTS))
        with stage.cluster.supervisor() as supervisor:
            supervisor.stopProcess("postgres")
            time.sleep(AWAY_SECONDS)
            supervisor.startProcess("postgres")
        return in_flight_of(1)

    yield Scene(strike)


@contextmanager
def redis() -> Iterator[Scene]:
    """Redis forgets everything, and is killed."""
    from redis import Redis

    def strike(stage: Stage) -> int:
        the_busy_worker(stage)
        with Redis(unix_socket_path=str(stage.cluster.sockets / "redis.sock")) as client:
            client.flushall()
        with stage.cluster.supervisor() as supervisor:
            supervisor.signalProcess("redis", "KILL")
        return in_flight_of(8)

    yield Scene(strike)


@contextmanager
def disk() -> Iterator[Scene]:
    """The workers' disk runs full; then somebody frees space and asks again."""
    folder = Path(os.environ[SMALL_DISK])
    ballast = folder / "ballast"

    def strike(stage: Stage) -> int:
        the_busy_worker(stage)
        fill(ballast)
        return 0  # what is out when a run fails is waited for

    settings = {"data_dir": str(folder / "data")}
    yield Scene(strike, settings, "the disk is full; free space", ballast.unlink)


@contextmanager
def store() -> Iterator[Scene]:
    """The object store with the data answers 503 for a while."""
    from embedding_pipeline_tests.object_store import BUCKET, seaweed, set_credentials, troubled

    with (
        seaweed() as upstream,
        troubled(upstream) as trouble,
        pytest.MonkeyPatch.context() as patch,
    ):
        set_credentials(patch, trouble.endpoint)

        def strike(stage: Stage) -> int:
            the_busy_worker(stage)
            trouble.left = 1 << 30
            until(lambda: trouble.refused > 0, "a request to the object store")
            time.sleep(AWAY_SECONDS)
            trouble.left = 0
            return 0

        yield Scene(strike, {"data_dir": f"s3://{BUCKET}/cluster"})


SCENES: Final[Mapping[str, Callable[[], AbstractContextManager[Scene]]]] = {
    "calm": calm,
    "kill": killed,
    "postgres": postgres,
    "redis": redis,
    "disk": disk,
    "store": store,
}


def the_busy_worker(stage: Stage) -> int:
    """The main process of a worker that has requests out."""
    found: list[int] = []

    def busy() -> bool:
        out = stage.flying() if stage.api.books.inputs else set()
        found[:] = [pid for pid in stage.workers().values() if out & set(children(pid))]
        return bool(found)

    until(busy, "a worker with requests out", 0.2)
    return found[0]


def await_share(stage: Stage, share: float) -> None:
    """Wait until so many have been billed of the texts that no budget is set for."""
    texts = share * (stage.shape.days * stage.shape.own + stage.shape.common)
    until(lambda: stage.api.books.inputs >= texts, "answers", 0.2)


def in_flight_of(runs: int) -> int:
    """Most texts that so many runs have out at once."""
    return runs * 4 * 10


def fill(ballast: Path) -> None:
    """Take all the space there is, to the last byte."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 10, 1):
            with suppress_no_space():
                while file.write(bytes(size)) == size:
                    pass


@contextmanager
def suppress_no_space() -> Iterator[None]:
    """What says that there is none left is not an error here."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
