"""The record of the active space and of builds, on every kind of store."""

import asyncio

import pytest
from sqlalchemy import Connection

from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.records import Space
from embedding_pipeline.spaces import builds, history
from embedding_pipeline.spaces.records import Action, Build, BuildState, Target
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.stores import another

A, B, C = (Target(f"openai/{it}", Space("openai", it, "", 8), 8) for it in "abc")
DAY = 24 * 3600 * 1000


def put(store: Store, *switches: tuple[Action, Target]) -> None:
    def work(connection: Connection) -> None:
        for day, (action, target) in enumerate(switches):
            history.append(connection, action, target, by="test", now_ms=day * DAY)

    asyncio.run(store.write(work))


def test_the_active_space_is_the_last_that_was_switched_to(store: Store) -> None:
    assert store.ask(history.active) is None
    put(store, (Action.ADOPT, A), (Action.PROMOTE, B), (Action.DROP, A))
    found = store.ask(history.active)
    assert found is not None
    assert (found.target, found.action) == (B, Action.PROMOTE)


def test_the_way_back_is_the_last_other_space_that_is_still_there(store: Store) -> None:
    put(store, (Action.ADOPT, A), (Action.PROMOTE, B), (Action.PROMOTE, C))
    events = store.ask(history.history)
    assert history.previous(events) == B
    assert history.kept(events, 30 * DAY, now_ms=3 * DAY) == B
    assert history.kept(events, 30 * DAY, now_ms=40 * DAY) is None
    assert history.expired(events, 30 * DAY, now_ms=31 * DAY) == [A]
    put(store, (Action.DROP, B))
    assert history.previous(store.ask(history.history)) == A


def test_only_one_of_two_that_saw_the_same_history_may_go_on(store: Store) -> None:
    put(store, (Action.ADOPT, A))
    seen = store.ask(history.history)

    def promote(connection: Connection) -> None:
        history.unchanged(connection, seen)
        history.append(connection, Action.PROMOTE, B, by="test", now_ms=DAY)

    async def both() -> list[BaseException | None]:
        with another(store) as other:
            work = (store.write(promote), other.write(promote))
            return list(await asyncio.gather(*work, return_exceptions=True))

    outcomes = asyncio.run(both())
    assert [type(it) for it in outcomes if it is not None] == [ConfigurationError]
    assert len(store.ask(history.history)) == 2


def opened(store: Store, target: Target, key: str) -> Build:
    return asyncio.run(
        store.write(
            lambda c: builds.open_build(
                c, target, BuildState.BUILDING, key=key, cost_nano_usd=1, note="", now_ms=0
            )
        )
    )


def test_one_build_is_open_and_another_target_ends_it(store: Store) -> None:
    first = opened(store, A, "one")
    assert opened(store, A, "two") == first
    second = opened(store, B, "three")
    ended = store.ask(lambda c: builds.by_key(c, "one"))
    assert ended is not None
    assert ended.state is BuildState.CANCELLED
    assert store.ask(builds.current) == second


def test_an_attempt_begins_once_however_many_begin_it(store: Store) -> None:
    build = opened(store, A, "one")

    async def both() -> list[Build | None]:
        with another(store) as other:
            work = [it.write(lambda c: builds.next_attempt(c, build, 1)) for it in (store, other)]
            return list(await asyncio.gather(*work))

    attempts = asyncio.run(both())
    assert sorted(it.attempts for it in attempts if it is not None) == [1]


@pytest.mark.parametrize("state", [BuildState.PROMOTED, BuildState.CANCELLED])
def test_a_build_that_is_over_is_not_open(store: Store, state: BuildState) -> None:
    build = opened(store, A, "one")
    assert asyncio.run(store.write(lambda c: builds.move(c, build, state, "over", 1)))
    assert not asyncio.run(store.write(lambda c: builds.move(c, build, state, "again", 2)))
    assert store.ask(builds.current) is None
