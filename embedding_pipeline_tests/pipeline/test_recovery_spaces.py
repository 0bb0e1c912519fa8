"""What waits in spaces other than the settings': completed where it is written, else forgotten."""

from pathlib import Path

import pytest
from sqlalchemy import Connection

from embedding_pipeline.assembly.spaces import wanted
from embedding_pipeline.assembly.watching import deferrals, find_recovery
from embedding_pipeline.cache.database import space_id
from embedding_pipeline.catalog import find_model
from embedding_pipeline.ledger.deferred import BUDGET, Deferred, backlogs, put_off
from embedding_pipeline.records import Account, Priority, Space, digest_of
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.spaces import builds, history
from embedding_pipeline.spaces.records import Action, BuildState, Target
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.clock import FakeClock

pytestmark = pytest.mark.anyio

LARGE = find_model("text-embedding-3-large")
ADA = find_model("text-embedding-ada-002")


def settings_in(folder: Path) -> Settings:
    model = {"model": "openai/text-embedding-3-small"}
    return load_settings({"data_dir": str(folder), "embedding": model})


def made_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def defer(connection: Connection, space: Space, day: str) -> None:
    chunk = Deferred(Account("p", "", day), "a", digest_of("a"), Priority.NORMAL, BUDGET, 5)
    put_off(connection, space_id(connection, space), [chunk], f"{space.model} {day}", 1)


async def test_a_space_that_is_built_is_completed_and_one_nobody_writes_is_forgotten(
    tmp_path: Path, clock: FakeClock
) -> None:
    settings, built = settings_in(tmp_path), Target(LARGE.name, LARGE.space, 3072)
    active = wanted(settings)

    def prepare(connection: Connection) -> None:
        history.append(connection, Action.ADOPT, active, by="test", now_ms=1)
        builds.open_build(
            connection, built, BuildState.BUILDING, key="k", cost_nano_usd=0, note="", now_ms=1
        )
        for number, space in enumerate((active.space, LARGE.space, ADA.space), 1):
            defer(connection, space, f"2026-01-0{number}")

    with Store(settings.state, clock) as store:
        await store.write(prepare)
        asked = settings.model_copy(
            update={"embedding": settings.embedding.model_copy(update={"model": LARGE.name})}
        )
        found = await find_recovery(asked, busy=(), tried={}, most=10, clock=clock)
        assert [launch.partition for launch in found.launches] == ["2026-01-01", "2026-01-02"]
        assert found.forgotten == 1
        left = {one.space for one in await store.read(backlogs)}
        assert left == {str(active.space), str(LARGE.space)}
        assert len(await deferrals(asked, clock)) == 2
        again = await find_recovery(asked, busy=(), tried={}, most=10, clock=clock)
        assert again.forgotten == 0


async def test_with_no_state_there_is_nothing_and_none_is_made(
    tmp_path: Path, clock: FakeClock
) -> None:
    found = await find_recovery(settings_in(tmp_path), busy=(), tried={}, most=1, clock=clock)
    assert (found.launches, found.forgotten) == ((), 0)
    assert made_in(tmp_path) == []
