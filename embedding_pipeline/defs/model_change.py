"""``model_change_sensor``: the settings ask for other vectors than readers get.

Belongs here: looking, asking for the next step, and taking it. Does not belong here: which
step that is (``spaces.decision``), or its parts (``assembly.switching``).

Each tick reads the settings anew, so that a changed ``pipeline.yaml`` needs no reload.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import dagster as dg

from embedding_pipeline.defs import backfills
from embedding_pipeline.defs.compat import MAX_RETRIES
from embedding_pipeline.defs.orphans import BUILD_TAG, STEP_TAG, end_orphans, runs_of
from embedding_pipeline.defs.promotion import JOB, JUDGE, PRICE
from embedding_pipeline.defs.repeats import remind
from embedding_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from embedding_pipeline.clock import Clock
    from embedding_pipeline.settings.tree import Settings
    from embedding_pipeline.spaces.decision import Price, Step, World
    from embedding_pipeline.spaces.records import Build
    from embedding_pipeline.state.store import Store

SENSOR: Final = "model_change_sensor"
ASSETS: Final = ("embeddings", "cost_summary")
STEPS: Final = 4
"""Steps of one tick: put on record, priced, launched. More are for the next one."""

PRIORITY: Final = "-10"
"""Of the build's runs in the queue: new days go first."""

CRASHES: Final = "5"
"""Of one run, after which Dagster gives it up; where ``run_retries`` are on."""


class Ticking:
    """One tick: steps are decided and taken until one has to be waited for."""

    def __init__(
        self,
        context: dg.SensorEvaluationContext,
        settings: "Settings",
        store: "Store",
        clock: "Clock",
    ) -> None:
        self._context = context
        self._settings = settings
        self._store = store
        self._clock = clock
        self._requests: list[dg.RunRequest] = []

    async def run(self) -> dg.SensorResult | dg.SkipReason:
        """Take the steps; the result says what the last one was."""
        from embedding_pipeline.spaces.decision import Idle, Launch, RunGate, RunPlan

        said: list[str] = []
        for _ in range(STEPS):
            step = await self._decide()
            said.append(await self._take(step))
            if isinstance(step, Idle | Launch | RunGate | RunPlan):
                break
        if self._requests:
            return dg.SensorResult(run_requests=self._requests)
        return dg.SkipReason("; ".join(said))

    async def _decide(self) -> "Step":
        from embedding_pipeline.assembly.pricing import price_of
        from embedding_pipeline.assembly.switching import look
        from embedding_pipeline.spaces.decision import AskPrice, decide

        world = self._with_dagster(look(self._settings, self._store, self._clock))
        step = decide(world)
        if isinstance(step, AskPrice):
            price: Price = await price_of(self._settings, world.stale, self._clock)
            step = decide(replace(world, price=price))
        return step

    def _with_dagster(self, world: "World") -> "World":
        """The world with Dagster's part; backfills of builds that are over are cancelled."""
        instance, build = self._context.instance, world.build
        for name in backfills.cancel_others(instance, BUILD_TAG, build.key if build else None):
            self._context.log.info("backfill %s: its build is over, cancelled", name)
        if build is None:
            return world
        gate = runs_of(instance, JUDGE, build.key)
        plan = runs_of(instance, PRICE, build.key, build.changed_at_ms)
        return replace(
            world,
            backfill=backfills.status_of(instance, build.backfill_id),
            gate_running=gate[0],
            gate_runs=gate[1],
            plan_running=plan[0],
            plan_runs=plan[1],
        )

    async def _take(self, step: "Step") -> str:  # noqa: PLR0911 - one for each step
        """Take one step; returns it in words."""
        from embedding_pipeline.assembly import switching
        from embedding_pipeline.spaces import decision

        match step:
            case decision.OpenBuild():
                build = await switching.open_build(self._settings, self._store, step, self._clock)
                return f"{build.target}: {build.state.value}: {build.note}"
            case decision.Move():
                return await switching.move_build(self._store, step, self._clock)
            case decision.SwitchView():
                return f"readers get {await switching.switch_view(self._settings, SENSOR)} now"
            case decision.Launch():
                return await self._launch(step.days, again=step.again)
            case decision.RunGate():
                return await self._ask_for(JUDGE, "is complete: the gate is asked")
            case decision.RunPlan():
                return await self._ask_for(PRICE, "is being priced in a run")
            case decision.Idle():
                return step.why
        return "its price could not be asked"

    async def _launch(self, days: tuple[str, ...], *, again: bool) -> str:
        """Put the attempt on record, then launch its backfill: in this order it happens once."""
        from embedding_pipeline.assembly import switching

        build = await switching.begin_attempt(self._store, self._clock, again=again)
        if build is None:
            return "another process was first"
        backfills.add(
            self._context,
            build.backfill_id,
            ASSETS,
            days,
            tags={BUILD_TAG: build.key, "dagster/priority": PRIORITY, MAX_RETRIES: CRASHES},
            title=f"Embed {len(days)} days in {build.target}",
            description=build.note,
        )
        return f"launched backfill {build.backfill_id}: {len(days)} days in {build.target}"

    async def _ask_for(self, what: str, said: str) -> str:
        """Request a run about the open build; the same one until it has ended."""
        from embedding_pipeline.assembly.spaces import SpacesState

        build: Build | None = (await self._store.read(SpacesState.read)).build
        if build is None:
            return "another process was first"
        _, ended = runs_of(self._context.instance, what, build.key)
        key = f"{build.key}:{what}:{build.attempts}:{ended}"
        self._requests.append(
            dg.RunRequest(run_key=key, job_name=JOB, tags={BUILD_TAG: build.key, STEP_TAG: what})
        )
        return f"{build.target} {said}"


def build_sensor(settings_now: "Callable[[], Settings]") -> dg.SensorDefinition:
    """The sensor. It starts stopped: a person switches it on."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        from embedding_pipeline.assembly.parts import open_store
        from embedding_pipeline.clock import SystemClock

        settings, clock = settings_now(), SystemClock()
        for run_id in end_orphans(context.instance, clock):
            context.log.info("run %s: its process is gone; it counts as failed", run_id)
        for done in remind(context.instance, clock):
            context.log.info(done)
        with open_store(settings, clock) as store:
            result = asyncio.run(Ticking(context, settings, store, clock).run())
        asyncio.run(_drop_expired(context, settings))
        asyncio.run(_tell_people(context, settings))
        return result

    return dg.SensorDefinition(
        name=SENSOR,
        evaluation_fn=evaluate,
        job_name=JOB,  # by name: Dagster warns of its own beta where it resolves objects
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description=(
            "Another model or other dimensions in the settings: priced, built beside the active "
            "space in one backfill, judged, and switched at once."
        ),
    )


async def _drop_expired(context: dg.SensorEvaluationContext, settings: "Settings") -> None:
    from embedding_pipeline.assembly.dropping import drop_expired

    for gone in await drop_expired(settings):
        context.log.info(
            "dropped %s, %d days, %d bytes: it was replaced more than %d days ago",
            gone.space,
            gone.days,
            gone.size_bytes,
            settings.spaces.keep_days,
        )


async def _tell_people(context: dg.SensorEvaluationContext, settings: "Settings") -> None:
    """Send what a person is to know, where there is a webhook; a build never ends for it."""
    from embedding_pipeline.assembly.watching import send_alerts

    if settings.alerts.webhook_url_env is None:
        return
    try:
        delivery = await send_alerts(settings)
    except ConfigurationError as error:
        context.log.warning("an alert could not be sent: %s", error)
        return
    if delivery.problem:
        context.log.warning("an alert could not be sent: %s", delivery.problem)
