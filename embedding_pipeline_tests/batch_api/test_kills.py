"""Killed between any two steps: never a second submission, nothing paid twice, nothing lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.batch_api.killed import LEFT
from embedding_pipeline_tests.batch_api.world import (
    ADVANCING,
    NEVER_UPLOADED,
    NOTHING_LEFT,
    SUBMITTING,
    KillAt,
    Killed,
    World,
    texts_of,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI


@pytest.mark.anyio
@pytest.mark.parametrize("store", ["postgres"], indirect=True)
@pytest.mark.parametrize("point", SUBMITTING + ADVANCING)
async def test_a_kill_costs_nothing_and_loses_nothing(
    point: str, store: Store, fake_openai: FakeOpenAI
) -> None:
    world, texts, kill = World(store, fake_openai), texts_of(12), KillAt(point)
    with pytest.raises(Killed):
        await world.submit_and_advance(texts, kill)
    assert kill.struck
    await world.advance()  # the lease still holds: nobody else touches it
    await world.finish()
    rest = await world.submit(texts)
    assert rest.inputs == (12 if point in NEVER_UPLOADED else 0)
    await world.finish()
    assert all(await world.right(texts))
    assert len(fake_openai.batches.batches) == 1
    assert fake_openai.books.billed_twice == 0
    assert await world.booked() == fake_openai.books.cost_nano_usd
    assert await world.booked("unknown") == 0
    assert await world.left_over(texts) == NOTHING_LEFT
    assert await world.sweep() == 0
    assert not fake_openai.batches.files


SOME = ("uploading", "uploaded", "created", "group settled", "day written")
"""Of the marks; ``python -m benchmarks.batches --kill`` takes all."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_days_on_their_way_survive_processes_that_are_really_killed(
    tmp_path: Path, fake_openai_process: FakeProcess
) -> None:
    command = [
        sys.executable,
        "-m",
        "embedding_pipeline_tests.batch_api.killed",
        str(fake_openai_process.port),
        str(tmp_path),
        *SOME,
    ]
    key = {"OPENAI_API_KEY": KEY}
    run = subprocess.run(
        command, env={**os.environ, **key}, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr
    outcomes = [json.loads(line) for line in run.stdout.splitlines()]
    assert [one["point"] for one in outcomes] == list(SOME)
    for one in outcomes:
        assert one == {
            "point": one["point"],
            "killed": True,
            "right": True,
            "batches": 1,
            "files": 0,
            "billed_twice": 0,
            "half_price": True,
            "unbooked_nano_usd": 0,
            "unknown_nano_usd": 0,
            "left_over": [0] * len(LEFT),
        }
