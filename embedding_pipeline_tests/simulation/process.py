"""What one process of a story does: the real service over the simulated machine.

Belongs here: joining the parts as ``assembly`` does, and judging what comes out. Does not
belong here: when it begins or ends (``acting``).
"""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from embedding_pipeline.circuit import BreakerConfig
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.breaking import Breaking
from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.embedders.fake import fake_vector
from embedding_pipeline.embedders.fallback import Fallback, Route
from embedding_pipeline.embedders.limiting import Limiting
from embedding_pipeline.embedders.retrying import Retrying
from embedding_pipeline.embedders.stopping import Stopping
from embedding_pipeline.errors import (
    ConservationError,
    EmbeddingPipelineError,
    Overloaded,
    ServiceClosed,
    ServiceError,
    TextRefused,
)
from embedding_pipeline.ledger import quarantine
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.limits.database import DatabaseLimits
from embedding_pipeline.limits.limiter import Limiter
from embedding_pipeline.limits.protocol import Terms
from embedding_pipeline.pipeline.embed import build_embeddings
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import Kind, Space
from embedding_pipeline.service.config import ServiceConfig
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline_tests.service.harness import MAX_TOKENS, SPACE, SPEC, WIDTH, rules
from embedding_pipeline_tests.simulation.api import POISON, Api, Line
from embedding_pipeline_tests.simulation.disk import Disk, DiskStore
from embedding_pipeline_tests.simulation.laws import Laws, require
from embedding_pipeline_tests.simulation.machine import Machine
from embedding_pipeline_tests.simulation.seeds import Days, Online, Story

SPACES: Final = (SPACE, Space("fake", "other", "", WIDTH))
RETRY: Final = RetryConfig(max_attempts=4, max_seconds=250, timeout_seconds=20)
PATIENCE_SECONDS: Final = 120.0
ZONE: Final = "UTC"


@dataclass(frozen=True)
class World:
    """What all processes of a story share."""

    story: Story
    machine: Machine
    disk: Disk
    apis: Sequence[Api]
    laws: Laws
    datasets: Datasets

    def service(self, model: int, number: int) -> ServiceCore:
        """A service as one process opens it."""
        from datetime import UTC

        story, space = self.story, SPACES[model]
        caps = RequestCaps(
            max_inputs=story.max_inputs,
            max_input_tokens=MAX_TOKENS,
            max_request_tokens=story.request_tokens,
            target_tokens=story.request_tokens,
        )
        config = ServiceConfig(
            spec=replace(SPEC, name=f"fake/{space.model}", space=space),
            kind=Kind.API,
            provider=self.apis[0].name,
            dimensions=WIDTH,
            caps=caps,
            rules=rules(),
            max_in_flight=story.in_flight,
            memory_bytes=4096,
            patience_seconds=PATIENCE_SECONDS,
            run_id=f"run-{number}",
            budgets=Budgets(story.budgets, UTC) if story.budgets else None,
            defers_outages=story.on_outage_defer,
            window_bytes=story.window_rows * 4 * WIDTH,
        )
        chain = self._embedder(space, number)
        return ServiceCore(config, DiskStore(self.disk), chain, self.machine)

    def _embedder(self, space: Space, number: int) -> Embedder:
        routes = [self._route(api, space) for api in self.apis]
        asked = Fallback(routes) if len(routes) > 1 else routes[0].breaking
        rng = random.Random(self.story.seed * 1000 + number)
        return Retrying(asked, RETRY, self.machine, rng)

    def _route(self, api: Api, space: Space) -> Route:
        rpm, tpm = self.story.limits if self.story.limits and self.story.told else (0, 0)
        limiter = Limiter(
            DatabaseLimits(lambda: DiskStore(self.disk), self.machine),
            f"{api.name}/{space.model}",
            api.name,
            Terms(tokens=tpm, requests=rpm),
            self.machine,
        )
        stopping = Stopping(Limiting(Line(api, space), limiter), self.machine)
        breaking = Breaking(stopping, api.name, BreakerConfig(), self.machine)
        return Route(api.name, breaking, stopping)


async def work(world: World, job: Days | Online, model: int, number: int) -> str:
    """Do a job in a process of its own; returns how it ended, in a word."""
    try:
        async with world.service(model, number) as service:
            if isinstance(job, Days):
                await embed(world, service, job)
            else:
                await ask(world, service, job)
    except EmbeddingPipelineError as exc:
        require("I4", not isinstance(exc, ConservationError), exc)
        ours = (ServiceClosed, Overloaded)
        require("I9", isinstance(exc, ours) or not isinstance(exc, ServiceError), exc)
        return type(exc).__name__
    return "done"


async def embed(world: World, service: ServiceCore, job: Days, *, redrive: bool = False) -> None:
    """Make the files of some days."""
    if redrive:
        await service.store.write(quarantine.redrive)

    def look(_: object) -> None:
        for run in service._runs:
            full = run._open_rows <= world.story.window_rows
            some = sum(len(batch.work) > 0 for batch in run._places.open)
            require("I11", full or some <= 1, run._open_rows, "rows are open")

    reports = await build_embeddings(
        service, world.datasets, job.days, priority=job.priority, on_progress=look
    )
    for report in reports:
        require("I6", report.chunks == len(world.story.days[report.partition]), report)


async def ask(world: World, service: ServiceCore, job: Online) -> None:
    """Ask for single texts; every one is answered."""

    async def one(text: str) -> None:
        try:
            vector = await service.generate_embedding(
                text, project=job.project, priority=job.priority
            )
        except TextRefused as exc:
            excused = exc.reason == quarantine.BAD_REPLY  # every reply for it was spoilt
            require("I7", POISON in text or excused, "a good text was refused")
            return
        require("I7", POISON not in text, "a bad text has a vector")
        expected = fake_vector(service.space.model, text, WIDTH)
        require("I1", bool(np.array_equal(vector, expected)), "another text's vector")

    if job.at_once:
        answers = await asyncio.gather(*map(one, job.texts), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return
    for text in job.texts:
        await one(text)
