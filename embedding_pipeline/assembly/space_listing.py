"""What there is of spaces, as rows for people and programs.

Belongs here: joining the history, the open build and the files. Does not belong here:
printing.
"""

from collections.abc import Iterator
from typing import Any

from embedding_pipeline.assembly.dropping import size_bytes
from embedding_pipeline.assembly.parts import build_datasets
from embedding_pipeline.assembly.spaces import (
    DAY_MS,
    SpacesState,
    active_target,
    read_state,
    shortest,
    wanted,
)
from embedding_pipeline.clock import utc
from embedding_pipeline.records import Space
from embedding_pipeline.settings.recipe import recipe
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.spaces import history
from embedding_pipeline.spaces.comparison import compare_days, summary
from embedding_pipeline.spaces.records import Action, Event, Target
from embedding_pipeline.vectors.datasets import Datasets


def overview(settings: Settings) -> list[dict[str, Any]]:
    """One row a space that has vectors or is to have some; the active one first."""
    datasets, state = build_datasets(settings), read_state(settings)
    known = set(datasets.spaces())
    if not known and state.build is None and state.active is None:
        return []
    active = active_target(settings, state, datasets)
    known |= {active.space, wanted(settings).space}
    known |= {state.build.target.space} if state.build else set()
    rows = [_row(settings, datasets, state, active, space) for space in known]
    return sorted(rows, key=lambda row: (row["state"] != "active", row["space"]))


def events(settings: Settings) -> list[dict[str, Any]]:
    """The history, oldest first."""
    return [_event(event) for event in read_state(settings).events]


def _row(
    settings: Settings, datasets: Datasets, state: SpacesState, active: Target, space: Space
) -> dict[str, Any]:
    name, note = _state(settings, state, active, space)
    last = next((e for e in reversed(state.events) if e.target.space == space), None)
    return {
        "space": str(space),
        "dimensions": active.dimensions if space == active.space else shortest(datasets, space),
        "state": name,
        "days": len(datasets.embedded_days(space)),
        "size_bytes": size_bytes(settings, space),
        "since": "" if last is None else _at(last.at_ms),
        "by": "" if last is None else last.by,
        "note": note,
    }


def _state(settings: Settings, state: SpacesState, active: Target, space: Space) -> tuple[str, str]:
    if space == active.space:
        return "active", "; ".join([*_changes(state, space), *_differences(settings, active)])
    if state.build is not None and state.build.target.space == space:
        return state.build.state.value, state.build.note
    ended = history.served_until(state.events).get(space)
    if ended is not None:
        until = _at(ended + settings.spaces.keep_days * DAY_MS)
        return "kept", f"a way back until {until}"
    if space == wanted(settings).space:
        return "wanted", "the settings ask for it"
    return "unused", "never promoted; to remove it: embedding-pipeline spaces drop"


def _differences(settings: Settings, active: Target) -> list[str]:
    """What of the active space is not as the settings would make it now, and why."""
    datasets = build_datasets(settings)
    days = datasets.embedded_days(active.space)
    return summary(compare_days(datasets, days, active, recipe(settings)))


def _changes(state: SpacesState, space: Space) -> Iterator[str]:
    if state.build is not None and state.build.target.space == space:
        yield f"{state.build.target}: {state.build.state.value}: {state.build.note}"


def _event(event: Event) -> dict[str, Any]:
    gate = "" if "passed" not in event.report else "passed" if event.report["passed"] else "refused"
    dropped = event.action is Action.DROP
    return {
        "at": _at(event.at_ms),
        "action": event.action.value,
        "space": str(event.target.space),
        "dimensions": event.target.space.native_dimensions if dropped else event.target.dimensions,
        "by": event.by,
        "forced": event.forced,
        "gate": gate,
        "report": dict(event.report),
    }


def _at(instant_ms: int) -> str:
    return utc(instant_ms / 1000).isoformat(timespec="seconds")
