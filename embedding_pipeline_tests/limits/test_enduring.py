"""A Redis that is away for a while is waited for by who needs a permit, and within a bound."""

import logging
from collections.abc import Callable

import pytest

from embedding_pipeline.errors import StateError
from embedding_pipeline.limits.enduring import FIRST_SECONDS, PATIENCE_SECONDS, Enduring
from embedding_pipeline.limits.protocol import Ask, Terms, Want
from embedding_pipeline.limits.redis import RedisLimits
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.servers import redis_in, server_folder

pytestmark = pytest.mark.anyio

TERMS = Terms(tokens=60_000, requests=60)
WANTS = Ask("me", wants=(Want("p", 1000, 1, 0, 10),))


class Until(FakeClock):
    """Does something at its n-th sleep."""

    def __init__(self, sleeps: int, act: Callable[[], object]) -> None:
        super().__init__()
        self._left = sleeps
        self._act = act

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        self._left -= 1
        if not self._left:
            self._act()


async def test_a_restart_is_waited_out_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with server_folder() as folder:
        server = redis_in(folder)
        limits = Enduring(RedisLimits(f"unix://{folder}/redis.sock"), Until(3, server.__enter__))
        answer = await limits.exchange("k", TERMS, WANTS)
        assert answer.granted == (0,)
        assert list(await limits.states()) == ["k"]
        await limits.aclose()
        server.__exit__(None, None, None)
    ours = [record for record in caplog.records if record.name.startswith("embedding_pipeline")]
    assert [record.levelno for record in ours] == [logging.WARNING]


async def test_the_wait_has_an_end(clock: FakeClock) -> None:
    with server_folder() as folder:
        with redis_in(folder):
            limits = Enduring(RedisLimits(f"unix://{folder}/redis.sock"), clock)
            await limits.exchange("k", TERMS, WANTS)
        with pytest.raises(StateError, match="check redis_url"):
            await limits.exchange("k", TERMS, WANTS)
        await limits.aclose()
    assert PATIENCE_SECONDS <= clock.elapsed <= PATIENCE_SECONDS + 5


async def test_a_server_that_never_answered_is_not_waited_for_so_long(clock: FakeClock) -> None:
    limits = Enduring(RedisLimits("unix:///nowhere/redis.sock"), clock)
    with pytest.raises(StateError, match="check redis_url"):
        await limits.exchange("k", TERMS, WANTS)
    assert FIRST_SECONDS <= clock.elapsed <= FIRST_SECONDS + 5 < PATIENCE_SECONDS
    await limits.aclose()


async def test_a_refused_login_is_no_outage(redis_url: str, clock: FakeClock) -> None:
    limits = Enduring(RedisLimits(redis_url.replace("unix://", "unix://nobody:wrong@")), clock)
    with pytest.raises(StateError, match="lets us write"):
        await limits.exchange("k", TERMS, WANTS)
    assert clock.sleeps == []
    await limits.aclose()


async def test_who_only_tells_does_not_wait(clock: FakeClock) -> None:
    limits = Enduring(RedisLimits("unix:///nowhere/redis.sock"), clock)
    with pytest.raises(StateError):
        await limits.exchange("k", TERMS, Ask("me"))
    assert clock.sleeps == []
    await limits.aclose()
