"""A change of the model that is too dear: nothing is spent, people hear the price, one approves."""

import asyncio

import dagster as dg
import pytest

from embedding_pipeline.assembly.spaces import read_state
from embedding_pipeline.assembly.switching import approve
from embedding_pipeline.defs.promotion import JOB
from embedding_pipeline.spaces import decision
from embedding_pipeline.spaces.records import Build, BuildState
from embedding_pipeline_tests.alerts.receiver import Receiver, receiving
from embedding_pipeline_tests.defs.conftest import DAYS, Project
from embedding_pipeline_tests.defs.test_model_change import SMALL, ask_for, served, tick

DEAR = {"spaces": {"max_auto_cost_usd": "0.000001"}}
WEBHOOK = {"alerts": {"webhook_url_env": "ALERTS"}}
pytestmark = pytest.mark.anyio


def build_of(project: Project) -> Build:
    build = read_state(project.settings).build
    assert build is not None
    return build


async def hears_of_the_price(
    project: Project, instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """Nothing is spent, however often the sensor looks; people hear of it once."""
    spent = project.api.books.cost_nano_usd
    assert "waits" in str(await asyncio.to_thread(tick, project, instance))
    await asyncio.to_thread(project.run, instance, DAYS[0])
    assert not instance.get_backfills()
    assert project.api.books.cost_nano_usd == spent
    (text,) = receiver.texts
    assert "more than spaces.max_auto_cost_usd" in text
    assert f"${build_of(project).cost_nano_usd / 1e9:,.6f}" in text
    assert await asyncio.to_thread(served) == SMALL


async def test_what_is_too_dear_waits_and_says_its_price(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_for(project, "small")
    await asyncio.to_thread(project.run, instance, *DAYS)
    async with receiving() as receiver:
        monkeypatch.setenv("ALERTS", receiver.url)
        ask_for(project, "large", **DEAR, **WEBHOOK)
        assert "spaces promote --approve" in str(await asyncio.to_thread(tick, project, instance))
        await hears_of_the_price(project, instance, receiver)
    await approve(project.settings, "somebody")
    monkeypatch.delenv("ALERTS")  # an alert that cannot be sent holds nothing up
    assert "launched backfill" in str(await asyncio.to_thread(tick, project, instance))
    assert build_of(project).approved_by == "somebody"


async def test_the_price_of_many_chunks_is_found_in_a_run(
    project: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_for(project, "small")
    await asyncio.to_thread(project.run, instance, *DAYS)
    monkeypatch.setattr(decision, "IN_A_TICK", 0)
    async with receiving() as receiver:
        monkeypatch.setenv("ALERTS", receiver.url)
        ask_for(project, "large", **DEAR, **WEBHOOK)
        asked = await asyncio.to_thread(tick, project, instance)
        assert isinstance(asked, dg.SensorResult)
        (request,) = asked.run_requests or ()
        assert build_of(project).state is BuildState.PRICING
        job = project.defs().resolve_job_def(JOB)
        assert request.job_name == JOB
        await asyncio.to_thread(job.execute_in_process, instance=instance, tags=request.tags)
        assert build_of(project).state is BuildState.WAITING
        await hears_of_the_price(project, instance, receiver)
    await approve(project.settings, "somebody")
    assert "launched backfill" in str(await asyncio.to_thread(tick, project, instance))
