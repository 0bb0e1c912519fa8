"""What came of a run: which partitions are done, which are not, and why.

Belongs here: reading a finished run's events into a frozen verdict. Does not belong
here: running anything, or deciding what to run next (``launch``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import dagster as dg

from embedding_pipeline.defs.failures import BLAMED

BUDGET_CHECK: Final = "within_budget"
INTERRUPTS: Final = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


@dataclass(frozen=True)
class RunOutcome:
    """One run over some partitions.

    Attributes:
        run_id: Dagster's id of the run; it is in the UI under this id.
        partitions: the days it was for, in order.
        finished: the days on which every asset was made and no blocking check failed.
        failed: the days that were to blame, or without anyone to blame all that are
            not finished; each with the reason in one line.
        held_back: days nothing is wrong with, stopped by the failure of another.
        seconds: wall time.
        stopped: somebody asked it to end.
        over_budget: those of ``failed`` that nothing but ``within_budget`` stands against.
    """

    run_id: str
    partitions: tuple[str, ...]
    finished: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    held_back: tuple[str, ...] = ()
    seconds: float = 0.0
    stopped: bool = False
    over_budget: frozenset[str] = frozenset()

    @property
    def success(self) -> bool:
        """Whether every partition is done."""
        return len(self.finished) == len(self.partitions)


def outcome_of(
    run_id: str,
    events: Sequence[dg.DagsterEvent],
    partitions: Sequence[str],
    assets: Iterable[dg.AssetKey],
    seconds: float = 0.0,
) -> RunOutcome:
    """The verdict on a run that has ended, from its events."""
    by_steps = _blamed_by_steps(events)
    blamed = {**by_steps, **_blamed_by_checks(events)}
    poor = _out_of_budget(events) - by_steps.keys()
    made = {(event.asset_key, event.partition) for event in events if event.is_step_materialization}
    wanted = set(assets)
    finished = tuple(
        day
        for day in partitions
        if day not in blamed and all((asset, day) in made for asset in wanted)
    )
    rest = [day for day in partitions if day not in finished and day not in blamed]
    if rest and not blamed:
        blamed, rest = dict.fromkeys(rest, _general_reason(events)), []
    stopped = any(_was_told_to_end(event) for event in events)
    return RunOutcome(
        run_id, tuple(partitions), finished, blamed, tuple(rest), seconds, stopped, poor
    )


def contiguous(days: Sequence[str], all_days: Sequence[str], most: int) -> list[tuple[str, ...]]:
    """``days`` cut into runs: neighbours in ``all_days``, at most ``most`` of them each."""
    position = {day: index for index, day in enumerate(all_days)}
    runs: list[list[str]] = []
    for day in sorted(days, key=position.__getitem__):
        last = runs[-1] if runs else []
        if last and len(last) < most and position[day] == position[last[-1]] + 1:
            last.append(day)
        else:
            runs.append([day])
    return [tuple(run) for run in runs]


def _blamed_by_steps(events: Sequence[dg.DagsterEvent]) -> dict[str, str]:
    """Partitions that a failed step names."""
    blamed: dict[str, str] = {}
    for event in events:
        if not event.is_step_failure:
            continue
        said = event.step_failure_data.user_failure_data
        value = said.metadata.get(BLAMED) if said else None
        if isinstance(value, dg.JsonMetadataValue) and isinstance(value.data, Mapping):
            blamed |= {str(day): _one_line(str(why)) for day, why in value.data.items()}
    return blamed


def _blamed_by_checks(events: Sequence[dg.DagsterEvent]) -> dict[str, str]:
    """Partitions on which a check that blocks has failed."""
    blamed: dict[str, str] = {}
    for day, found in _blocking(events):
        reason = f"check {found.check_name}: {found.description or 'failed'}"
        blamed.setdefault(day, _one_line(reason))
    return blamed


def _out_of_budget(events: Sequence[dg.DagsterEvent]) -> frozenset[str]:
    """Partitions that no other check than the one of the budgets has stopped."""
    stopped = [(day, found.check_name) for day, found in _blocking(events)]
    others = {day for day, check in stopped if check != BUDGET_CHECK}
    return frozenset(day for day, _ in stopped) - others


def _blocking(
    events: Sequence[dg.DagsterEvent],
) -> Iterator[tuple[str, dg.AssetCheckEvaluation]]:
    """The checks that have stopped a partition."""
    for event in events:
        found = event.event_specific_data
        if not isinstance(found, dg.AssetCheckEvaluation) or found.passed or not found.blocking:
            continue
        if found.severity is dg.AssetCheckSeverity.ERROR and found.partition is not None:
            yield found.partition, found


def _general_reason(events: Sequence[dg.DagsterEvent]) -> str:
    """Why a run failed that names no partition: what the first failed step said last."""
    for event in events:
        if event.is_step_failure:
            said = event.step_failure_data.user_failure_data
            if said and said.description:
                return _one_line(said.description)
            error = event.step_failure_data.error
            while error and error.cause:
                error = error.cause
            return _one_line(error.message if error else event.message or "the step failed")
    messages = [event.message for event in events if event.is_failure and event.message]
    return _one_line(messages[-1]) if messages else "the run ended before this partition was made"


def _was_told_to_end(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error if event.is_step_failure else None
    return error is not None and error.cls_name in INTERRUPTS


def _one_line(text: str) -> str:
    return " ".join(text.split())
