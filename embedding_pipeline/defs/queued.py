"""A backfill that the daemon runs, on whatever workers the instance launches runs on.

Belongs here: adding it from outside of Dagster, waiting for its end, reading what came of it.
Does not belong here: running anything in this process (``launch``).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import uuid4

import dagster as dg

from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.defs import backfills
from embedding_pipeline.defs.compat import BACKFILL_RUN_TAG, days_of_run, history_is_away
from embedding_pipeline.defs.days import available_days, select_days
from embedding_pipeline.defs.graph import build_graph
from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline.defs.launch import (
    ASSETS,
    BACKFILL_TAG,
    BackfillOutcome,
    known,
)
from embedding_pipeline.defs.outcomes import RunOutcome, outcome_of
from embedding_pipeline.errors import ConfigurationError, StateUnreachable

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings

T = TypeVar("T")

POLL_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 300.0
"""How long the database of Dagster's history may be away while a backfill is waited for."""

HEARTBEAT_SECONDS: Final = 300.0
DAEMON: Final = "BACKFILL"


@dataclass(frozen=True)
class Queued:
    """A backfill that was added.

    Attributes:
        backfill_id: Dagster's id of it; also the value of the tag ``embedding_pipeline/backfill``.
        days: what it was asked to make.
        assets: of which assets.
    """

    backfill_id: str
    days: tuple[str, ...]
    assets: tuple[str, ...]


OnCount = Callable[[int, int], None]
"""Told how many runs of how many have ended."""


def queue(
    settings: "Settings",
    start: str,
    end: str,
    *,
    assets: Sequence[str] = ASSETS,
    home: Path | None = None,
    clock: Clock | None = None,
) -> Queued:
    """Add one backfill of the days ``start`` to ``end``.

    The daemon cuts it into runs of ``spaces.partitions_per_run`` days.

    Raises:
        ConfigurationError: a day or an asset does not exist, or no daemon is there.
    """
    days = select_days(available_days(settings), start, end)
    names = [key.to_user_string() for key in known(assets)]
    queued = Queued(uuid4().hex[:8], tuple(days), tuple(names))
    with open_instance(settings, home) as instance:
        refuse_without_daemon(instance, clock or SystemClock())
        backfills.add_to(
            instance,
            build_graph(settings, {}).get_repository_def(),
            queued.backfill_id,
            names,
            days,
            tags={BACKFILL_TAG: queued.backfill_id},
            title=f"{start} to {end}",
            description="Asked for by embedding-pipeline backfill --queue.",
        )
    return queued


def refuse_without_daemon(instance: dg.DagsterInstance, clock: Clock) -> None:
    """Raise ConfigurationError when nobody would run a backfill."""
    beat = instance.get_daemon_heartbeats().get(DAEMON)
    if beat is None or clock.now() - beat.timestamp > HEARTBEAT_SECONDS:
        raise ConfigurationError(
            "no Dagster daemon is running on this instance; start one (make cluster, make ui, or "
            "dagster-daemon run), check DAGSTER_HOME, or leave --queue out"
        )


async def wait(
    settings: "Settings",
    queued: Queued,
    *,
    home: Path | None = None,
    clock: Clock | None = None,
    on_count: OnCount | None = None,
) -> BackfillOutcome:
    """Wait until a backfill has ended, as long as that takes, and read what came of it.

    Raises:
        StateUnreachable: Dagster's history has been away for ``PATIENCE_SECONDS``.
    """
    clock = clock or SystemClock()
    told = (-1, -1)
    with open_instance(settings, home) as instance:
        while count := await enduring(lambda: _under_way(instance, queued), clock):
            if on_count is not None and count != told:
                on_count(*count)
            told = count
            await clock.sleep(POLL_SECONDS)
        return await enduring(lambda: outcome(instance, queued), clock)


async def enduring(look: Callable[[], T], clock: Clock) -> T:
    """What ``look`` finds, once the database answers: it may be restarted meanwhile.

    Raises StateUnreachable after ``PATIENCE_SECONDS``.
    """
    began = clock.monotonic()
    while True:
        try:
            return look()
        except Exception as error:
            if not history_is_away(error):
                raise
            if clock.monotonic() - began >= PATIENCE_SECONDS:
                raise StateUnreachable(
                    "Dagster's history cannot be reached any more; start its database. The "
                    "backfill goes on by itself: run this command again to see what came of it"
                ) from error
        await clock.sleep(POLL_SECONDS)


def _under_way(instance: dg.DagsterInstance, queued: Queued) -> tuple[int, int] | None:
    """How many runs of how many have ended; None when the backfill has."""
    if not backfills.is_active(instance, queued.backfill_id):
        return None
    return _count(instance, queued.backfill_id)


def outcome(instance: dg.DagsterInstance, queued: Queued) -> BackfillOutcome:
    """What came of a backfill, from the events of its runs, retries included.

    A retry does what its first run left undone, so the runs over the same days are one story.
    """
    stories: dict[tuple[str, str], list[str]] = {}
    for run in reversed(_runs(instance, queued.backfill_id)):
        stories.setdefault(days_of_run(run.tags), []).append(run.run_id)
    found = [_of_runs(instance, days, runs, queued) for days, runs in stories.items()]
    return BackfillOutcome(queued.backfill_id, tuple(found), queued.days)


def _of_runs(
    instance: dg.DagsterInstance, span: tuple[str, str], runs: Sequence[str], queued: Queued
) -> RunOutcome:
    """The last run decides; what earlier ones made counts as made."""
    events = [list(_events(instance, run_id)) for run_id in runs]
    made = [event for run in events[:-1] for event in run if event.is_step_materialization]
    days = [day for day in queued.days if span[0] <= day <= span[1]]
    return outcome_of(runs[-1], [*made, *events[-1]], days, map(dg.AssetKey, queued.assets))


def _events(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.DagsterEvent]:
    for entry in instance.all_logs(run_id):
        if entry.dagster_event is not None:
            yield entry.dagster_event


def _count(instance: dg.DagsterInstance, backfill_id: str) -> tuple[int, int]:
    runs = _runs(instance, backfill_id)
    return sum(run.is_finished for run in runs), len(runs)


def _runs(instance: dg.DagsterInstance, backfill_id: str) -> Sequence[dg.DagsterRun]:
    """Its runs, newest first."""
    return instance.get_runs(dg.RunsFilter(tags={BACKFILL_RUN_TAG: backfill_id}))
