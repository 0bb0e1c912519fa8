"""Who is alive: one lease a service, so that what a dead one held can be taken back.

Belongs here: leases and the test whether their owner still lives. Does not belong
here: what an owner holds (flights, claims).

A lease ends when it was not renewed for ``LEASE_SECONDS``, or at once when its process
is known to be gone: same machine, same process namespace, no such process any more.
"""

import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, delete, insert, update

from embedding_pipeline.state.schema import owners
from embedding_pipeline.state.statements import mark, run

LEASE_SECONDS: Final = 60
RENEW_SECONDS: Final = 15

_ENDED: Final = frozenset("ZXx")
"""States of a process that runs no more, though its parent has not taken notice yet."""


@dataclass(frozen=True)
class Owner:
    """One service of one process. ``started`` tells two processes of one pid apart."""

    id: str
    host: str
    pid: int
    started: str


def this_process() -> Owner:
    """A new owner for the calling process."""
    pid = os.getpid()
    return Owner(uuid.uuid4().hex, _host(), pid, _started(pid))


def ended(owner: Owner) -> bool:
    """Whether the owner's process is known to be gone; of another machine nothing is known."""
    return owner.host == _host() and _gone(owner.pid, owner.started)


def register(connection: Connection, owner: Owner, now_ms: int) -> None:
    """Write the owner's first lease."""
    connection.execute(
        insert(owners).values(
            id=owner.id,
            host=owner.host,
            pid=owner.pid,
            started=owner.started,
            expires_at=now_ms + LEASE_SECONDS * 1000,
        )
    )


def renew(connection: Connection, owner: Owner, now_ms: int) -> bool:
    """Extend the lease; False when it had been taken away."""
    done = connection.execute(
        update(owners)
        .where(owners.c.id == owner.id)
        .values(expires_at=now_ms + LEASE_SECONDS * 1000)
    )
    return bool(done.rowcount)


def remove(connection: Connection, owner_id: str) -> None:
    """End a lease."""
    connection.execute(delete(owners).where(owners.c.id == owner_id))


def dead(connection: Connection, now_ms: int, *, asking: str = "") -> list[str]:
    """Owners that are gone: their lease ran out, or their process does not exist any more.

    Args:
        connection: any transaction.
        now_ms: the instant.
        asking: the owner who asks. It is alive, however late its heartbeat is.
    """
    here, sign = _host(), mark(connection)
    others = f"SELECT id, host, pid, started, expires_at FROM owners WHERE id <> {sign}"  # noqa: S608
    return [
        number
        for number, host, pid, started, expires_at in run(connection, others, (asking,))
        if expires_at < now_ms or (host == here and _gone(pid, started))
    ]


def _gone(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it exists and is not ours
        return False
    state, began = _stat(pid)
    return state in _ENDED or (bool(started) and began not in ("", started))


def _started(pid: int) -> str:
    """When a process started, as the kernel counts it; "" where that cannot be known."""
    return _stat(pid)[1]


def _stat(pid: int) -> tuple[str, str]:
    """State and start of a process, from Linux's /proc; empty where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]


def _host() -> str:
    """This machine, and within it the namespace in which a pid means something."""
    try:
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        namespace = ""
    return f"{socket.gethostname()} {namespace}".strip()
