"""Waiting for a backfill that others do, though the database with the history goes away."""

from collections.abc import Callable, Iterator

import pytest
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import OperationalError, ProgrammingError

from embedding_pipeline.defs.queued import PATIENCE_SECONDS, POLL_SECONDS, enduring
from embedding_pipeline.errors import StateUnreachable
from embedding_pipeline_tests.clock import FakeClock

pytestmark = pytest.mark.anyio

AWAY = OperationalError("SELECT 1", {}, Exception("the database system is starting up"))


def history(*answers: str | Exception) -> Callable[[], str]:
    """Gives one answer after the other, the last one for ever."""
    waiting: Iterator[str | Exception] = iter(answers)

    def look() -> str:
        answer = next(waiting, answers[-1])
        if isinstance(answer, Exception):
            raise answer
        return answer

    return look


async def test_a_restart_of_the_history_is_waited_out(clock: FakeClock) -> None:
    tried = DagsterPostgresException("too many retries for DB connection")
    tried.__cause__ = AWAY
    look = history(AWAY, tried, "done")
    assert await enduring(look, clock) == "done"
    assert clock.sleeps == [POLL_SECONDS, POLL_SECONDS]


async def test_who_waits_in_vain_is_told_that_the_backfill_goes_on(clock: FakeClock) -> None:
    with pytest.raises(StateUnreachable, match="goes on by itself"):
        await enduring(history(AWAY), clock)
    assert PATIENCE_SECONDS <= clock.elapsed <= PATIENCE_SECONDS + POLL_SECONDS


async def test_what_is_wrong_with_a_question_is_no_absence(clock: FakeClock) -> None:
    with pytest.raises(ProgrammingError):
        await enduring(history(ProgrammingError("SELECT", {}, Exception("syntax"))), clock)
    assert clock.sleeps == []
