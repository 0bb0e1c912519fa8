"""A change of the model, step by step: looking, pricing, judging and switching.

Belongs here: what the sensor and the command line both do. Does not belong here: the
rules (``spaces.decision``, ``spaces.gate``), or Dagster.
"""

import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection

from embedding_pipeline.alerts.outbox import file_alert
from embedding_pipeline.assembly.parts import build_datasets, open_store
from embedding_pipeline.assembly.spaces import SpacesState, active_target, wanted
from embedding_pipeline.cache import database
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.ledger import quarantine
from embedding_pipeline.ledger.deferred import count
from embedding_pipeline.pipeline.accounting import representative_days
from embedding_pipeline.pipeline.checks import all_checks
from embedding_pipeline.records import Space
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.spaces import builds, history
from embedding_pipeline.spaces.comparison import stale_days
from embedding_pipeline.spaces.decision import Move, OpenBuild, World, was_active
from embedding_pipeline.spaces.gate import GateReport, judge
from embedding_pipeline.spaces.records import UNPRICED, Action, Build, BuildState, Target
from embedding_pipeline.spaces.sampling import draw
from embedding_pipeline.state.store import Store
from embedding_pipeline.vectors.datasets import Datasets

SEED: Final = 7
"""The sample is the same each time, so that a gate asked again says the same."""


@dataclass(frozen=True)
class Examination:
    """What stands between a space and its promotion.

    Attributes:
        missing: days that it lacks, or has too short.
        failing: for days that fail a check, what the check says.
        report: the gate's; None when there was nothing to judge or no need.
    """

    missing: tuple[str, ...] = ()
    failing: Mapping[str, str] | None = None
    report: GateReport | None = None

    @property
    def complete(self) -> bool:
        """Whether every day is there and passes every check."""
        return not self.missing and not self.failing

    @property
    def problems(self) -> list[str]:
        """Everything that speaks against it, a sentence each."""
        found = []
        if self.missing:
            found.append(
                f"{len(self.missing)} days are not there: {self.missing[0]} to {self.missing[-1]}"
            )
        found += [f"{day}: {why}" for day, why in (self.failing or {}).items()]
        return found + (self.report.reasons if self.report else [])


@dataclass(frozen=True)
class Promotion:
    """What came of asking for a switch."""

    target: Target
    promoted: bool
    examination: Examination
    forced: bool = False


def expected_days(datasets: Datasets, first: str) -> list[str]:
    """The days from ``first`` on that every complete space has: those embedded in any space."""
    there = set(datasets.days("deduped_chunks"))
    days = {day for space in datasets.spaces() for day in datasets.embedded_days(space)}
    return sorted(day for day in days & there if day >= first)


def look(settings: Settings, store: Store, clock: Clock) -> World:
    """All that a decision rests on, Dagster's part aside. Blocking; reads footers."""
    datasets, asked = build_datasets(settings), wanted(settings)
    state = store.ask(SpacesState.read)
    days = expected_days(datasets, settings.start_date.isoformat())
    stale = tuple(stale_days(datasets, days, asked))
    priced = state.build is None or state.build.state in UNPRICED
    switches = [event for event in state.events if event.action is not Action.DROP]
    return World(
        wanted=asked,
        active=active_target(settings, state, datasets),
        last=switches[-1] if switches else None,
        build=state.build,
        days=len(days),
        stale=stale,
        limit_nano_usd=settings.spaces.max_auto_cost_nano_usd,
        now_ms=now_ms(clock),
        chunks=sum(datasets.deduped_chunks(day).rows() for day in stale) if priced else 0,
        deferred=store.ask(lambda c: count(c, asked.space)),
    )


def now_ms(clock: Clock) -> int:
    """The instant as the store keeps it."""
    return int(clock.now() * 1000)


async def open_build(settings: Settings, store: Store, step: OpenBuild, clock: Clock) -> Build:
    """Put a build on record, or find the one that is there for the same target."""
    key, at, target = uuid.uuid4().hex[:12], now_ms(clock), wanted(settings)

    def work(connection: Connection) -> Build:
        build = builds.open_build(
            connection,
            target,
            step.state,
            key=key,
            cost_nano_usd=step.cost_nano_usd,
            note=step.note,
            now_ms=at,
        )
        if build.state is BuildState.WAITING:
            text = f"The change to {target} waits: {build.note}"
            file_alert(connection, f"space_build/{build.key}/waiting", text, at)
        return build

    return await store.write(work)


async def move_build(store: Store, step: Move, clock: Clock) -> str:
    """Move the open build on, and say so to people where the step asks for it."""
    at = now_ms(clock)

    def work(connection: Connection) -> str:
        build = builds.current(connection)
        if build is None or not builds.move(connection, build, step.state, step.note, at):
            return "another process was first"
        text = f"{build.target}: {step.state.value}: {step.note}"
        if step.alert:
            key = f"space_build/{build.key}/{step.state.value}/{build.attempts}"
            file_alert(connection, key, text, at)
        return text

    return await store.write(work)


async def begin_attempt(store: Store, clock: Clock, *, again: bool) -> Build | None:
    """The open build with one attempt more, or as it is when its attempt is to be repeated."""
    at = now_ms(clock)

    def work(connection: Connection) -> Build | None:
        build = builds.current(connection)
        if build is None or build.state is not BuildState.BUILDING:
            return None
        return build if again else builds.next_attempt(connection, build, at)

    return await store.write(work)


async def approve(settings: Settings, by: str, clock: Clock | None = None) -> Build:
    """Let the build of the settings' space go on, whatever it costs.

    Raises ConfigurationError when there is nothing to approve.
    """
    clock = clock or SystemClock()
    at, asked = now_ms(clock), wanted(settings)
    key = uuid.uuid4().hex[:12]

    def work(connection: Connection) -> Build:
        build = builds.current(connection)
        if build is None or build.target != asked:
            raise ConfigurationError(
                f"no build of {asked} waits for approval; switch on model_change_sensor, or "
                "embed the days with: embedding-pipeline backfill"
            )
        if build.state not in (BuildState.PRICING, BuildState.WAITING, BuildState.FAILED):
            return build
        note = f"approved by {by}"
        if build.state is not BuildState.FAILED:
            builds.move(connection, build, BuildState.BUILDING, note, at, approved_by=by)
        else:
            builds.move(connection, build, BuildState.CANCELLED, "begun anew", at)
            builds.open_build(
                connection,
                asked,
                BuildState.BUILDING,
                key=key,
                cost_nano_usd=build.cost_nano_usd,
                note=note,
                now_ms=at,
                approved_by=by,
            )
        found = builds.current(connection)
        assert found is not None
        return found

    with open_store(settings, clock) as store:
        return await store.write(work)


async def examine(
    settings: Settings, store: Store, target: Target, state: SpacesState
) -> Examination:
    """Check every day of a space, and let the gate judge it. Reads all its vectors."""
    datasets = build_datasets(settings)
    days = expected_days(datasets, settings.start_date.isoformat())
    missing = stale_days(datasets, days, target)
    if missing:
        return Examination(tuple(missing))
    failing: dict[str, str] = {}
    for day in days:
        held = await store.read(partial(_held, space=target.space, day=day))
        earlier = {
            other: await store.read(partial(_held, space=target.space, day=other))
            for other in representative_days(datasets, day)
        }
        verdicts = all_checks(datasets, target.space, target.dimensions, day, held, earlier=earlier)
        said = [verdict.description for verdict in verdicts.values() if not verdict.passed]
        failing |= {day: said[0]} if said else {}
    if failing:
        return Examination((), failing)
    return Examination((), {}, _judged(settings, datasets, days, target, state))


def _held(connection: Connection, space: Space, day: str) -> frozenset[str]:
    number = database.find_space(connection, space)
    return frozenset() if number is None else quarantine.chunk_ids(connection, number, day)


def _judged(
    settings: Settings,
    datasets: Datasets,
    days: Sequence[str],
    target: Target,
    state: SpacesState,
) -> GateReport | None:
    """The gate's report; a space that served readers before comes back without one."""
    active = active_target(settings, state, datasets)
    if active.space == target.space or was_active(state.events, target.space):
        return None
    gate = settings.spaces.gate
    both = [day for day in days if datasets.embeddings(active.space, day).exists()]
    sample = draw(datasets, both, active, target, gate.sample, random.Random(SEED))  # noqa: S311
    return judge(sample, gate, old=str(active), new=str(target))


async def promote(
    settings: Settings,
    target: Target,
    *,
    by: str,
    force: bool = False,
    clock: Clock | None = None,
) -> Promotion:
    """Make ``target`` what readers get, if it is complete and the gate says yes.

    The switch is one transaction: a row of the history, and the end of the build.

    Args:
        settings: where everything is, and the gate's thresholds.
        target: the space and length.
        by: who asks, for the record.
        force: promote against the gate's word; recorded. Never against a missing day.
        clock: time.

    Raises:
        ConfigurationError: another space became active meanwhile.
        DataError: the vectors cannot be read.
    """
    clock = clock or SystemClock()
    with open_store(settings, clock) as store:
        state = await store.read(SpacesState.read)
        found = await examine(settings, store, target, state)
        passed = found.report is None or found.report.passed
        report = found.report.as_tree() if found.report else {}
        _keep_report(settings, target, report)
        if not found.complete or not (passed or force):
            await store.write(lambda c: _refuse(c, target, found, report, now_ms(clock)))
            return Promotion(target, False, found)
        before = active_target(settings, state, build_datasets(settings))
        switch = Switch(
            Action.VIEW if before.space == target.space else Action.PROMOTE,
            before,
            target,
            by,
            not passed,
            report,
        )
        await store.write(lambda c: _switch(c, state, switch, now_ms(clock)))
    return Promotion(target, True, found, forced=not passed)


def _keep_report(settings: Settings, target: Target, report: Mapping[str, Any]) -> None:
    """The gate's latest report on a space as a file, for whoever wants to look or plot."""
    if not report:
        return
    storage, name = build_datasets(settings).storage, f"gate_reports/{target.space.slug}.json"
    storage.write(name, json.dumps(report, indent=2).encode())


@dataclass(frozen=True)
class Switch:
    """A switch that has been decided."""

    action: Action
    before: Target
    target: Target
    by: str
    forced: bool = False
    report: Mapping[str, Any] | None = None


def _refuse(
    connection: Connection,
    target: Target,
    found: Examination,
    report: Mapping[str, Any],
    at: int,
) -> None:
    build = builds.current(connection)
    if build is None or build.target != target or not found.complete:
        return
    note = "the gate refused it: " + "; ".join(found.problems)
    if builds.move(connection, build, BuildState.REFUSED, note, at, report=report):
        text = f"{target} is not promoted: {note}"
        file_alert(connection, f"space_build/{build.key}/refused", text, at)


def _switch(connection: Connection, seen: SpacesState, switch: Switch, at: int) -> None:
    """The switch, in one transaction: nothing of it, if the history is not as it was seen."""
    history.unchanged(connection, seen.events)
    history.adopt(connection, switch.before, at)
    history.append(
        connection,
        switch.action,
        switch.target,
        by=switch.by,
        now_ms=at,
        forced=switch.forced,
        report=switch.report,
    )
    build = builds.current(connection)
    if build is not None and build.target == switch.target:
        note = f"promoted by {switch.by}"
        builds.move(connection, build, BuildState.PROMOTED, note, at, report=switch.report)


async def rollback(settings: Settings, by: str, clock: Clock | None = None) -> Target:
    """Give readers the space they had before, at once; returns it.

    Raises ConfigurationError when there is none, or it is no longer complete.
    """
    clock = clock or SystemClock()
    datasets = build_datasets(settings)
    with open_store(settings, clock) as store:
        state = await store.read(SpacesState.read)
        target = history.previous(state.events)
        if state.active is None or target is None:
            raise ConfigurationError("no other space was active before; there is no way back")
        missing = stale_days(
            datasets, expected_days(datasets, settings.start_date.isoformat()), target
        )
        if missing:
            raise ConfigurationError(
                f"{target} is not complete any more: {len(missing)} days are not there, "
                f"{missing[0]} for one; set embedding.model to {target.model} to build them"
            )
        back = {"from": str(state.active.space)}
        switch = Switch(Action.ROLLBACK, state.active, target, by, report=back)
        await store.write(lambda c: _switch(c, state, switch, now_ms(clock)))
    return target


async def switch_view(settings: Settings, by: str, clock: Clock | None = None) -> Target:
    """Hand out the active space at the length the settings ask for; returns it."""
    clock, asked = clock or SystemClock(), wanted(settings)
    with open_store(settings, clock) as store:
        state = await store.read(SpacesState.read)
        before = active_target(settings, state, build_datasets(settings))
        if before != asked:
            switch = Switch(Action.VIEW, before, asked, by)
            await store.write(lambda c: _switch(c, state, switch, now_ms(clock)))
    return asked
