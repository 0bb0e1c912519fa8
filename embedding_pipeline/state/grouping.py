"""Group commit: transactions that wait for the writer are committed together.

Belongs here: the queue of one process's writes. Why: a commit writes every page it
touched, and keys are random, so sixteen transactions of 250 vectors write the index of
the cache sixteen times. Waiting ones share a commit; a lone one waits for nobody.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from embedding_pipeline.state.statements import run

T = TypeVar("T")
Work = Callable[[Connection], Any]
Transact = Callable[[Work], Any]

_SAVE: Final = "SAVEPOINT work"
_TAKE_BACK: Final = "ROLLBACK TO SAVEPOINT work"
_KEEP: Final = "RELEASE SAVEPOINT work"

GROUP: Final = 16
"""Most transactions in one commit; bounds how long other processes wait for the lock."""


class GroupWriter:
    """Runs writes one after another in a thread of its own, several in one commit.

    Each piece of work is all or nothing for itself (a savepoint), and is reported done
    only when the commit that holds it is. Where the commit fails, all of its work fails.
    """

    def __init__(self, transact: Transact) -> None:
        self._transact = transact
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state-write")
        self._queue: deque[tuple[Work, Future[Any]]] = deque()
        self._lock = threading.Lock()

    def submit(self, work: Callable[[Connection], T]) -> "Future[T]":
        """Queue one write. Raises RuntimeError once closed, like the thread it goes to."""
        future: Future[T] = Future()
        with self._lock:  # the thread looks at the queue only when the work is in it
            self._thread.submit(self._drain)
            self._queue.append((work, future))
        return future

    def close(self) -> None:
        """Finish what is queued."""
        self._thread.shutdown(wait=True)

    def _drain(self) -> None:
        group = self._next()
        if not group:
            return  # went along with an earlier commit
        try:
            outcomes = self._transact(lambda connection: _run(connection, group))
        except BaseException as exc:  # noqa: BLE001 - reported to those who wait
            for _, future in group:
                future.set_exception(exc)
            return
        for (_, future), (result, error) in zip(group, outcomes, strict=True):
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _next(self) -> list[tuple[Work, Future[Any]]]:
        with self._lock:
            taken = [self._queue.popleft() for _ in range(min(GROUP, len(self._queue)))]
        return [entry for entry in taken if entry[1].set_running_or_notify_cancel()]


def _run(
    connection: Connection, group: list[tuple[Work, Future[Any]]]
) -> list[tuple[Any, Exception | None]]:
    if len(group) == 1:
        return [(group[0][0](connection), None)]
    return [_apart(connection, work) for work, _ in group]


def _apart(connection: Connection, work: Work) -> tuple[Any, Exception | None]:
    """Run one piece of work so that its failure takes only itself back."""
    run(connection, _SAVE)  # SQLAlchemy's own objects for this cost more than it does
    try:
        result = work(connection)
    except Exception as exc:
        if _rolled_back(connection):
            raise
        run(connection, _TAKE_BACK)
        run(connection, _KEEP)
        return None, exc
    run(connection, _KEEP)
    return result, None


def _rolled_back(connection: Connection) -> bool:
    """Whether the failure ended the whole transaction.

    A full disk does in SQLite, and so does a server that goes away. What came before is gone
    then, and what came after would be committed by itself: the group has to fail as one.
    """
    if connection.invalidated:
        return True
    return not getattr(connection.connection.dbapi_connection, "in_transaction", True)
