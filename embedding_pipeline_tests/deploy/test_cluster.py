"""The cluster for real, in a small form: ``python -m benchmarks.cluster`` is the long one."""

import os
from pathlib import Path

import pytest

from embedding_pipeline_tests.deploy.stage import (
    Shape,
    children,
    kill,
    must_hold,
    staged,
    until,
)
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess

SHAPE = Shape(days=2, own=10, common=10, capped=0, per_run=1)
HELD_SECONDS = 15.0
A_REQUEST = 10


@pytest.mark.skipif(
    not os.environ.get("CLUSTER_TEST"), reason="some 60 CPU seconds: run with CLUSTER_TEST=1"
)
@pytest.mark.slow
def test_a_backfill_over_workers_is_whole_though_one_dies(
    tmp_path: Path,
    fake_openai_process: FakeProcess,  # noqa: F811
) -> None:
    api = fake_openai_process
    api.option(latency=HELD_SECONDS)
    with staged(tmp_path / "project", SHAPE, api, ui=False, limits={"max_in_flight": 2}) as stage:
        workers = stage.workers()
        assert len(workers) == 3
        with stage.backfill() as running:
            until(lambda: bool(stage.flying()), "a run with requests out")
            victim = min(stage.flying())
            api.option(latency=0.0)
            kill(victim)
            assert any(victim in children(worker) for worker in workers.values())
            said = stage.ended(running)
        assert said["success"]
        must_hold(stage, 2 * A_REQUEST)
        requests = api.books.requests
        stage.here()
        assert api.books.requests == requests, "a rerun makes no request"
