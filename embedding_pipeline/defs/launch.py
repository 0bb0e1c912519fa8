"""Running the graph from our own command line, without a webserver or a daemon.

Belongs here: runs over ranges of partitions in this process, on the instance that the
UI shows, and a backfill made of such runs. Does not belong here: parsing and printing
(``cli``), or what a run does.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import dagster as dg

from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.defs.automation import JOB
from embedding_pipeline.defs.compat import range_tags
from embedding_pipeline.defs.days import available_days, select_days
from embedding_pipeline.defs.graph import build_graph
from embedding_pipeline.defs.instance import open_instance
from embedding_pipeline.defs.orphans import end_orphans, process_tag
from embedding_pipeline.defs.outcomes import RunOutcome, contiguous, outcome_of
from embedding_pipeline.defs.resources import EmbedderResource
from embedding_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from embedding_pipeline.service.work import Progress
    from embedding_pipeline.settings.tree import Settings

ASSETS: Final = ("raw_chunks", "deduped_chunks", "duplicate_chunks", "embeddings", "cost_summary")
"""The whole graph, upstream first."""

BACKFILL_TAG: Final = "embedding_pipeline/backfill"
"""On every run of one backfill. Not Dagster's own tag: its daemon acts on that one."""

PARTITIONS_PER_RUN: Final = 10

_QUIET: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""The run's log is in the instance; a terminal shows progress instead."""

OnRun = Callable[[RunOutcome], None]
OnProgress = Callable[["Progress"], None]


@dataclass(frozen=True)
class BackfillOutcome:
    """A range of days, made by one run after another.

    Attributes:
        backfill_id: value of the tag ``embedding_pipeline/backfill`` on all its runs.
        runs: what came of each run, in order.
        partitions: the days that were asked for.
    """

    backfill_id: str
    runs: tuple[RunOutcome, ...]
    partitions: tuple[str, ...]

    @property
    def stopped(self) -> bool:
        """Whether somebody asked it to end before its time."""
        return any(run.stopped for run in self.runs)

    @property
    def finished(self) -> tuple[str, ...]:
        """The days that are done."""
        done = {day for run in self.runs for day in run.finished}
        return tuple(day for day in self.partitions if day in done)

    @property
    def failed(self) -> dict[str, str]:
        """The days that failed and were not made by a later run, each with the reason."""
        done = set(self.finished)
        every = {day: why for run in self.runs for day, why in run.failed.items()}
        return {day: why for day, why in every.items() if day not in done}

    @property
    def lacks_only_money(self) -> bool:
        """Whether budgets, and nothing else, stand against the days that are not done."""
        poor = {day for run in self.runs for day in run.over_budget}
        left = set(self.partitions) - set(self.finished)
        return bool(left) and left <= poor

    @property
    def success(self) -> bool:
        """Whether every day is done."""
        return len(self.finished) == len(self.partitions)


class Launcher:
    """Runs partitions of the graph in this process, one run at a time.

    Use it on the main thread: only there can a run be told to end.
    """

    def __init__(
        self,
        settings: "Settings",
        instance: dg.DagsterInstance,
        *,
        assets: Sequence[str] = ASSETS,
        on_progress: OnProgress | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._assets = known(assets)
        embedder = EmbedderResource(settings, on_progress)
        self._job = build_graph(settings, {"openai": embedder}).resolve_job_def(JOB)
        self._instance = instance
        self._clock = clock or SystemClock()

    def run(self, partitions: Sequence[str], tags: Mapping[str, str]) -> RunOutcome:
        """One run over neighbouring partitions; its failure is an outcome, not an exception."""
        run_id, started = str(uuid4()), self._clock.monotonic()
        result: dg.ExecuteInProcessResult | None = None
        with suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            result = self._job.execute_in_process(
                instance=self._instance,
                asset_selection=self._assets,
                tags={**tags, **process_tag(run_id), **range_tags(partitions[0], partitions[-1])},
                run_config=_QUIET,
                run_id=run_id,
                raise_on_error=False,
            )
        events = self._events(run_id, result)
        seconds = self._clock.monotonic() - started
        return outcome_of(run_id, events, partitions, self._assets, seconds)

    def _events(
        self, run_id: str, result: dg.ExecuteInProcessResult | None
    ) -> Sequence[dg.DagsterEvent]:
        """What happened in a run; the books know more than the result of one that failed."""
        if result is not None and result.success:
            return result.all_events
        entries = self._instance.all_logs(run_id)
        return [entry.dagster_event for entry in entries if entry.dagster_event]


def backfill(
    settings: "Settings",
    start: str,
    end: str,
    *,
    assets: Sequence[str] = ASSETS,
    partitions_per_run: int = PARTITIONS_PER_RUN,
    on_run: OnRun | None = None,
    on_progress: OnProgress | None = None,
    home: Path | None = None,
    clock: Clock | None = None,
) -> BackfillOutcome:
    """Make the days ``start`` to ``end``, both included, in runs of neighbouring days.

    A run that fails does not stop the next one. Days that were only held back by another
    day's failure are run again without it. Ctrl-C ends the run in hand and the backfill.

    Args:
        settings: what to run with.
        start: first day, ``YYYY-MM-DD``.
        end: last day.
        assets: names of the assets to make.
        partitions_per_run: most days in one run.
        on_run: told of each run that has ended.
        on_progress: told how far the embedding of the run in hand is.
        home: where Dagster's history is; None finds it (``instance.dagster_home``).
        clock: time.

    Raises:
        ConfigurationError: a day or an asset does not exist; nothing was run.
    """
    available = available_days(settings)
    days = select_days(available, start, end)
    with open_instance(settings, home) as instance:
        end_orphans(instance)
        launcher = Launcher(settings, instance, assets=assets, on_progress=on_progress, clock=clock)
        waiting = deque(contiguous(days, available, max(1, partitions_per_run)))
        backfill_id, runs = uuid4().hex[:8], list[RunOutcome]()
        while waiting and not (runs and runs[-1].stopped):
            runs.append(launcher.run(waiting.popleft(), {BACKFILL_TAG: backfill_id}))
            waiting.extendleft(
                reversed(contiguous(runs[-1].held_back, available, partitions_per_run))
            )
            if on_run is not None:
                on_run(runs[-1])
    return BackfillOutcome(backfill_id, tuple(runs), tuple(days))


def known(assets: Sequence[str]) -> list[dg.AssetKey]:
    """Assets by name, upstream first. Raises ConfigurationError."""
    unknown = [name for name in assets if name not in ASSETS]
    if unknown or not assets:
        raise ConfigurationError(
            f"there is no asset {', '.join(unknown) or 'to make'}; choose from: {', '.join(ASSETS)}"
        )
    return [dg.AssetKey(name) for name in ASSETS if name in assets]
