"""A bulk run that runs out of money: it ends well, and says of every row what became of it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding_pipeline.records import Account, digest_of
from embedding_pipeline.service.work import FilledBatch, Row, WorkBatch
from embedding_pipeline_tests.service.harness import HandClock, Provider, open_service
from embedding_pipeline_tests.service.streams import DAYS, drain, stream
from embedding_pipeline_tests.service.test_budgets import budgets

pytestmark = pytest.mark.anyio


def work(*rows: tuple[str, str], first: int = 0) -> WorkBatch:
    """Chunks as text and project."""
    return WorkBatch(
        DAYS[0],
        [f"chunk {first + n}" for n in range(len(rows))],
        [text for text, _ in rows],
        np.array([len(text) for text, _ in rows], np.int32),
        [Account(project, "", DAYS[0]) for _, project in rows],
    )


async def embedded(
    folder: Path, provider: Provider, batches: list[WorkBatch], **limits: int
) -> list[FilledBatch]:
    clock = HandClock(through=100.0)
    async with open_service(folder, provider, clock, budgets=budgets(**limits)) as service:
        run = service.bulk(stream(batches))
        filled = await drain(run)
        (tally,) = run.tallies.values()
        assert tally.chunks == sum(len(batch) for batch in batches)
        assert tally.chunks == tally.embedded + tally.cached + tally.quarantined + tally.deferred
        assert tally.deferred == sum(len(one.deferred) for one in filled)
    return filled


async def test_one_project_runs_out_and_the_other_is_done(
    tmp_path: Path, provider: Provider
) -> None:
    rows = [(f"text {n:02}", "poor" if n % 2 else "rich") for n in range(40)]
    filled = await embedded(
        tmp_path, provider, [work(*rows[:20]), work(*rows[20:], first=20)], project_poor=3 * 7
    )
    ends = [Row(status) for one in filled for status in one.status]
    assert [end for end, (_, who) in zip(ends, rows, strict=True) if who == "rich"] == [
        Row.EMBEDDED
    ] * 20
    poor = [end for end, (_, who) in zip(ends, rows, strict=True) if who == "poor"]
    assert (poor.count(Row.EMBEDDED), poor.count(Row.DEFERRED)) == (3, 17)
    for one in filled:
        assert (one.vectors[one.status == Row.DEFERRED] == 0).all()
        assert {why.reason for why in one.deferred.values()} <= {"budget"}


async def test_a_text_of_two_projects_is_bought_by_the_one_that_can(
    tmp_path: Path, provider: Provider
) -> None:
    (one,) = await embedded(
        tmp_path,
        provider,
        [work(("shared", "poor"), ("shared", "rich"), ("own", "poor"), ("shared", "poor"))],
        project_poor=2,
    )
    assert [Row(status) for status in one.status] == [
        Row.DEFERRED,
        Row.EMBEDDED,
        Row.DEFERRED,
        Row.DEFERRED,
    ]
    assert provider.billed == {"shared": 1}


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.text("ab", min_size=1, max_size=9), st.sampled_from(["x", "y", "z"])),
        min_size=1,
        max_size=40,
    ),
    limits=st.tuples(st.integers(0, 60), st.integers(0, 30)),
)
async def test_whatever_the_budgets_nothing_is_lost_and_no_limit_is_passed(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    limits: tuple[int, int],
) -> None:
    provider, (every, one) = Provider(), limits
    batches = [work(*rows[n : n + 7], first=n) for n in range(0, len(rows), 7)]
    filled = await embedded(
        tmp_path_factory.mktemp("run"), provider, batches, all=every, project_x=one
    )
    assert provider.tokens <= every
    assert set(provider.billed.values()) <= {1}
    left = every - provider.tokens
    for text, project, status in (
        (text, account.project, status)
        for batch in filled
        for text, account, status in zip(
            batch.work.texts, batch.work.accounts, batch.status, strict=True
        )
    ):
        assert status in {Row.EMBEDDED, Row.CACHED, Row.DEFERRED}
        if status != Row.DEFERRED:
            assert text in provider.billed
        elif project != "x" and text not in provider.billed:
            assert len(text) > left, "it had fitted"
    assert len({digest_of(text) for text in provider.billed}) == len(provider.billed)
