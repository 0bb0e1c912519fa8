"""Runs on Celery workers, watched by asking the workers themselves.

Belongs here: Dagster's own launcher with one override, and the verdict behind it. Does not
belong here: settings of Celery (``deploy/dagster.yaml``), or anything a run does.

Celery notes in its result store that a task has started, and nothing more until it ends: of a
worker that is killed as a whole, a task stays "started" for good; and after the result store
is emptied, every task looks as if it had never been. So the workers are asked which tasks
they have in hand. Needs the extra ``celery``.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from embedding_pipeline.clock import Clock, SystemClock

ASKING_SECONDS: Final = 3.0
"""How long workers have for their answer."""

FRESH_SECONDS: Final = 5.0
"""One answer serves for all runs that are looked at in one go."""

GRACE_SECONDS: Final = 60.0
"""How long no worker may know of a run before it counts as dead. A busy machine answers late."""

_ENDED: Final = frozenset({"FAILURE", "REVOKED"})


def judge(state: str, held: bool | None, missed_seconds: float) -> CheckRunHealthResult:
    """Whether the process of a run that has started is still there.

    Args:
        state: what Celery's result store says of the task.
        held: whether a worker has it in hand; None when nobody could be asked.
        missed_seconds: how long no worker has had it.
    """
    if state in _ENDED:
        return CheckRunHealthResult(WorkerStatus.FAILED, f"Celery says {state}.")
    if held is not False or missed_seconds < GRACE_SECONDS:
        return CheckRunHealthResult(WorkerStatus.RUNNING)
    return CheckRunHealthResult(
        WorkerStatus.FAILED,
        f"No worker has had it for {missed_seconds:.0f} s: its worker ended without a word, as "
        "when it is killed. What it paid for is in the cache.",
    )


@dataclass
class Roll:
    """Which tasks the workers have in hand, and since when others are missed."""

    clock: Clock
    tasks: frozenset[str] | None = None
    asked_at: float = float("-inf")
    missed: dict[str, float] = field(default_factory=dict)

    def due(self) -> bool:
        """Whether the last answer is too old."""
        return self.clock.monotonic() - self.asked_at > FRESH_SECONDS

    def note(self, tasks: frozenset[str] | None) -> None:
        """Take an answer; None when nobody could be asked, which is no news of any task."""
        self.tasks, self.asked_at = tasks, self.clock.monotonic()
        if tasks is None:
            self.missed.clear()

    def look_up(self, task: str) -> tuple[bool | None, float]:
        """Whether it is in hand, and for how many seconds it has not been."""
        if self.tasks is None or task in self.tasks:
            self.missed.pop(task, None)
            return (None if self.tasks is None else True), 0.0
        since = self.missed.setdefault(task, self.asked_at)
        return False, self.asked_at - since


class WatchedCeleryRunLauncher(CeleryRunLauncher):
    """Dagster's launcher of runs as Celery tasks, which notices that a worker is gone."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._roll = Roll(SystemClock())

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """What run monitoring asks of every run that has started."""
        task = run.tags.get(DAGSTER_CELERY_TASK_ID_TAG)
        if task is None:  # launched, and not noted yet
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if self._roll.due():
            self._roll.note(self._held())
        return judge(self._state(task), *self._roll.look_up(task))

    def _held(self) -> frozenset[str] | None:
        try:
            answers = self.celery.control.inspect(timeout=ASKING_SECONDS).active() or {}
        except (OperationalError, RedisError, OSError):
            return None
        return frozenset(str(task["id"]) for tasks in answers.values() for task in tasks)

    def _state(self, task: str) -> str:
        try:
            return str(self.celery.AsyncResult(task).state)
        except (OperationalError, RedisError, OSError):
            return "UNKNOWN"
