"""What the next step of a change of the model is. Pure.

Belongs here: the rules, from what is seen to one step. Does not belong here: looking, or
taking the step (``assembly.switching``, ``defs.model_change``).

Every step is decided anew from what is there: what the settings ask for, what the files
were made with, and what the store and Dagster say of the build. Nothing depends on having
seen the change happen, so a process that dies between two steps is simply asked again.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from embedding_pipeline.records import Space
from embedding_pipeline.spaces.records import Action, Build, BuildState, Event, Target

MAX_ATTEMPTS: Final = 3
"""Backfills, runs of the gate, and runs for a price that may fail before a person is asked."""

IN_A_TICK: Final = 20_000
"""Chunks that are priced in the sensor's tick, which Dagster cuts off after 60 seconds: at
most two seconds' work on two cores, and time for a machine that is busy. More are priced in a
run."""

ASK_AGAIN_MS: Final = 15 * 60 * 1000
"""How long a change that a budget does not allow waits until its price is asked again."""


class Backfill(StrEnum):
    """What Dagster says of a build's latest backfill."""

    ABSENT = "absent"
    ACTIVE = "active"
    ENDED = "ended"
    CANCELLED = "cancelled"  # by a person


@dataclass(frozen=True)
class Price:
    """What a plan said.

    Attributes:
        cost_nano_usd: what it would cost; None where no price is known.
        objections: budgets that do not allow it, a sentence each.
        words: the plan in one line.
    """

    cost_nano_usd: int | None
    objections: tuple[str, ...] = ()
    words: str = ""


@dataclass(frozen=True)
class World:
    """All that a decision rests on.

    Attributes:
        wanted: what the settings ask for.
        active: what readers get.
        last: the last switch, if any is on record.
        build: the open build, if there is one.
        days: how many days are embedded, in any space.
        stale: those of them that cannot be served as wanted.
        limit_nano_usd: what a change may cost without being asked for.
        now_ms: milliseconds since the epoch.
        backfill: the state of the build's latest backfill.
        gate_running: a run of the gate for this build is under way.
        gate_runs: runs of the gate that ended without a verdict.
        price: what the plan said, once it was asked.
        chunks: of the stale days, where their price may have to be asked.
        plan_running: a run is about to say what the build costs.
        plan_runs: such runs that ended since the build last changed.
        deferred: chunks of the wanted space that are left for later: in a batch, say.
    """

    wanted: Target
    active: Target
    last: Event | None
    build: Build | None
    days: int
    stale: tuple[str, ...]
    limit_nano_usd: int
    now_ms: int
    backfill: Backfill = Backfill.ABSENT
    gate_running: bool = False
    gate_runs: int = 0
    price: Price | None = None
    chunks: int = 0
    plan_running: bool = False
    plan_runs: int = 0
    deferred: int = 0

    @property
    def same_space(self) -> bool:
        """Whether only the length differs, if anything does."""
        return self.wanted.space == self.active.space


@dataclass(frozen=True)
class Idle:
    """Nothing to do, and why."""

    why: str


@dataclass(frozen=True)
class AskPrice:
    """Plan the change, and decide again with its price."""


@dataclass(frozen=True)
class RunPlan:
    """Let a run say what the open build costs: it takes longer than a tick may."""


@dataclass(frozen=True)
class OpenBuild:
    """Put the build on record: allowed, or waiting for a person."""

    state: BuildState
    cost_nano_usd: int
    note: str


@dataclass(frozen=True)
class Move:
    """The open build goes on to another state."""

    state: BuildState
    note: str
    alert: bool = False


@dataclass(frozen=True)
class Launch:
    """Backfill these days; ``again``: the attempt is on record, but Dagster has not seen it."""

    days: tuple[str, ...]
    again: bool = False


@dataclass(frozen=True)
class RunGate:
    """Everything is there: let the gate judge it, and promote it."""


@dataclass(frozen=True)
class SwitchView:
    """The space is the active one already; only its length changes, and nothing is judged."""


Step: TypeAlias = Idle | AskPrice | RunPlan | OpenBuild | Move | Launch | RunGate | SwitchView


def decide(world: World) -> Step:
    """The one next step."""
    build = world.build
    if build is not None and build.target != world.wanted:
        return Move(BuildState.CANCELLED, f"the settings ask for {world.wanted} now")
    if not world.days:
        return Idle("no day is embedded yet")
    if world.same_space and not world.stale:
        return _of_the_active_space(world)
    if _rolled_back(world):
        return Idle(
            f"{world.wanted} was rolled back; the settings still ask for it. Set "
            "embedding.model back, or: embedding-pipeline spaces promote"
        )
    return _without_build(world) if build is None else _with_build(world, build)


def _of_the_active_space(world: World) -> Step:
    """All days can be served as wanted from the space that is active."""
    if world.wanted != world.active:
        return SwitchView()
    if world.build is not None:
        return Move(BuildState.PROMOTED, "every day is there")
    return Idle(f"all {world.days} days are as the settings ask: {world.wanted}")


def _rolled_back(world: World) -> bool:
    """Whether a person took back just what the settings ask for."""
    last = world.last
    return (
        last is not None
        and world.build is None
        and not world.same_space
        and last.action is Action.ROLLBACK
        and last.report.get("from") == str(world.wanted.space)
    )


def _without_build(world: World) -> Step:
    if not world.stale:
        return OpenBuild(BuildState.BUILDING, 0, "every day is there already")
    if world.price is None and world.chunks > IN_A_TICK:
        return OpenBuild(BuildState.PRICING, 0, "a run of space_promotion is to say what it costs")
    if world.price is None:
        return AskPrice()
    state, note = priced(world.price, world.limit_nano_usd)
    return OpenBuild(state, world.price.cost_nano_usd or 0, note)


def priced(price: Price, limit_nano_usd: int) -> tuple[BuildState, str]:
    """Whether a build may go on at a price, or waits for a person; and why."""
    objection = _objection(price, limit_nano_usd)
    return (BuildState.WAITING, objection) if objection else (BuildState.BUILDING, price.words)


def _objection(price: Price, limit_nano_usd: int) -> str:
    """Why a person has to be asked; "" where nobody has to be."""
    remedy = "nothing is spent until: embedding-pipeline spaces promote --approve"
    if price.cost_nano_usd is None:
        return f"its price is unknown ({price.words}); {remedy}"
    if price.cost_nano_usd > limit_nano_usd:
        return (
            f"it costs ${price.cost_nano_usd / 1e9:,.6f}, more than spaces.max_auto_cost_usd, "
            f"${limit_nano_usd / 1e9:,.6f} ({price.words}); {remedy}"
        )
    if price.objections:
        return (
            f"it costs ${price.cost_nano_usd / 1e9:,.6f}, which a budget does not allow: "
            f"{'; '.join(price.objections)} ({price.words}); {remedy}"
        )
    return ""


def _with_build(world: World, build: Build) -> Step:
    if build.state is BuildState.WAITING:
        return _waiting(world, build)
    if build.state is BuildState.PRICING:
        return _pricing(world, build)
    if build.state is not BuildState.BUILDING:
        return Idle(f"{build.target}: {build.state.value}: {build.note}")
    if world.backfill is Backfill.ACTIVE:
        return Idle(f"{build.target} is being built by backfill {build.backfill_id}")
    return _incomplete(world, build) if world.stale else _complete(world, build)


def _waiting(world: World, build: Build) -> Step:
    """A person has to approve it, unless what was in the way is gone."""
    affordable = build.cost_nano_usd <= world.limit_nano_usd
    if not affordable or world.now_ms - build.changed_at_ms < ASK_AGAIN_MS:
        return Idle(f"{build.target} waits: {build.note}")
    if world.price is None and world.chunks > IN_A_TICK:
        return _plan_again(world, build)
    if world.price is None:
        return AskPrice()
    return Move(*priced(world.price, world.limit_nano_usd))


def _plan_again(world: World, build: Build) -> Step:
    if world.plan_running or world.plan_runs >= MAX_ATTEMPTS:
        return Idle(f"{build.target} waits: {build.note}")
    return RunPlan()


def _pricing(world: World, build: Build) -> Step:
    """Nothing is known of its cost; it is not begun."""
    if not world.stale:
        return Move(BuildState.BUILDING, "every day is there already")
    if world.plan_running:
        return Idle(f"{build.target}: a run of space_promotion is planning what it costs")
    if world.plan_runs < MAX_ATTEMPTS:
        return RunPlan()
    return Move(
        BuildState.FAILED,
        f"the price of {build.target} could not be found in {world.plan_runs} runs; see the "
        "failed runs, mend them, and: embedding-pipeline spaces promote --approve",
        alert=True,
    )


def _incomplete(world: World, build: Build) -> Step:
    if world.backfill is Backfill.CANCELLED:
        return Move(
            BuildState.FAILED,
            f"backfill {build.backfill_id} was cancelled by hand with {len(world.stale)} days to "
            "go; to go on: embedding-pipeline spaces promote --approve",
        )
    if world.backfill is Backfill.ABSENT and build.attempts:
        return Launch(world.stale, again=True)
    if build.attempts >= MAX_ATTEMPTS:
        return Move(
            BuildState.FAILED,
            f"{len(world.stale)} days ({world.stale[0]} …) could not be made in "
            f"{build.attempts} attempts; see the failed runs, mend them, and: "
            "embedding-pipeline spaces promote --approve",
            alert=True,
        )
    return Launch(world.stale)


def _complete(world: World, build: Build) -> Step:
    if world.deferred:
        return Idle(
            f"{build.target} has every day, but {world.deferred} chunks are left for later; "
            "recovery_sensor and batch_api_sensor go on with them. See: embedding-pipeline failed "
            "deferred"
        )
    if world.gate_running:
        return Idle(f"{build.target} is complete; the gate is judging it")
    if world.gate_runs >= MAX_ATTEMPTS:
        return Move(
            BuildState.FAILED,
            f"the gate could not judge {build.target} in {world.gate_runs} runs; see "
            "the failed runs, then: embedding-pipeline spaces promote",
            alert=True,
        )
    return RunGate()


def was_active(events: tuple[Event, ...], space: Space) -> bool:
    """Whether a space served readers before: it needs no comparison to come back."""
    return any(event.target.space == space and event.action is not Action.DROP for event in events)
