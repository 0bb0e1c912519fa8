"""The cluster for real, in a small form: ``python -m benchmarks.cluster`` is the long one.

PostgreSQL, Redis, the daemon and two Celery workers; one run dies with a request out.
"""

from pathlib import Path

import pytest

from deploy.cluster import Cluster
from embedding_pipeline.defs import queued
from embedding_pipeline_tests.deploy.stage import (
    Shape,
    Stage,
    children,
    kill,
    must_hold,
    staged,
    until,
)
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.fixtures import (  # noqa: F401 - fixtures
    fake_openai_process,
    fake_openai_server,
)
from embedding_pipeline_tests.fake_openai.process import FakeProcess

SHAPE = Shape(days=2, own=10, common=10, capped=0, per_run=1)
A_REQUEST = 10
NEVER = 3600.0
AT_A_TIME = 2


def seen(stage: Stage, victims: list[int]) -> bool:
    """Note the run whose request is never answered, in a moment when no other has one out."""
    out = stage.flying() if stage.api.books.faults["billed_hang"] else set()
    if len(out) == 1:
        victims.extend(out)
    return len(out) == 1


@pytest.mark.slow
def test_a_backfill_over_workers_is_whole_though_one_dies(
    tmp_path: Path,
    fake_openai_process: FakeProcess,  # noqa: F811
) -> None:
    api, root = fake_openai_process, tmp_path / "project"
    api.fault(Fault("billed_hang", next=1, seconds=NEVER))
    settings = {
        "limits": {"max_in_flight": AT_A_TIME},
        "retry": {"timeout_seconds": NEVER, "max_seconds": NEVER},
    }
    with staged(root, SHAPE, api, Cluster(root, None, workers=2), **settings) as stage:
        workers = stage.workers()
        assert len(workers) == 2
        with stage.settings() as read:
            queued.queue(read, SHAPE.names[0], SHAPE.names[-1])
        victims: list[int] = []
        until(lambda: seen(stage, victims), "a run that waits for its answer", 0.5)
        (victim,) = victims
        assert any(victim in children(worker) for worker in workers.values())
        kill(victim)
        with stage.instance() as history:
            until(lambda: not any(stage.unfinished(history)), "every check of every day", 1.0)
        found = must_hold(stage, AT_A_TIME * A_REQUEST)
    assert found["billed_again"] >= A_REQUEST, "what was out is paid again"
    assert found["unknown_nano_usd"] > 0, "and is in the books"
