"""Who is alive: by lease, and at once where the process is known to be gone."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from embedding_pipeline.state import owners, schema
from embedding_pipeline.state.owners import LEASE_SECONDS, Owner
from embedding_pipeline.state.store import Store

pytestmark = pytest.mark.anyio

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux's /proc")

NOW = 1_790_000_000_000
LEASE = LEASE_SECONDS * 1000


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for its end of input."""
    command = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def _registered(store: Store, **changes: object) -> Owner:
    owner = replace(owners.this_process(), **changes)  # type: ignore[arg-type]
    await store.write(lambda c: owners.register(c, owner, NOW))
    return owner


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


async def _dead(store: Store, now: int = NOW, asking: str = "") -> list[str]:
    return await store.read(lambda c: owners.dead(c, now, asking=asking))


async def test_a_living_process_is_alive_until_its_lease_ends(store: Store) -> None:
    owner = await _registered(store)
    assert await _dead(store, NOW + LEASE) == []
    assert await _dead(store, NOW + LEASE + 1) == [owner.id]


async def test_renewing_extends_the_lease(store: Store) -> None:
    owner = await _registered(store)
    assert await store.write(lambda c: owners.renew(c, owner, NOW + LEASE))
    assert await _dead(store, NOW + 2 * LEASE) == []


async def test_who_asks_is_alive_however_late(store: Store) -> None:
    owner = await _registered(store)
    assert await _dead(store, NOW + 10 * LEASE, asking=owner.id) == []


async def test_a_lease_taken_away_is_noticed(store: Store) -> None:
    owner = await _registered(store)
    await store.write(lambda c: owners.remove(c, owner.id))
    assert not await store.write(lambda c: owners.renew(c, owner, NOW))
    assert await store.read(lambda c: c.execute(select(schema.owners)).all()) == []


async def test_a_process_that_ended_is_dead_at_once(
    store: Store, child: subprocess.Popen[bytes]
) -> None:
    owner = await _registered(store, pid=child.pid, started="")
    assert await _dead(store) == []
    await asyncio.to_thread(_end, child)
    assert await _dead(store) == [owner.id]


@needs_proc
async def test_a_killed_process_nobody_waited_for_is_dead_at_once(
    store: Store, child: subprocess.Popen[bytes]
) -> None:
    owner = await _registered(store, pid=child.pid, started="")
    child.kill()
    await asyncio.to_thread(os.waitid, os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert await _dead(store) == [owner.id]


@needs_proc
async def test_another_process_with_the_same_number_is_not_the_owner(store: Store) -> None:
    owner = await _registered(store, started="12345")
    assert await _dead(store) == [owner.id]


async def test_a_process_of_another_machine_is_judged_by_its_lease_alone(store: Store) -> None:
    owner = await _registered(store, host="elsewhere", pid=2**22 - 1)
    assert await _dead(store) == []
    assert await _dead(store, NOW + LEASE + 1) == [owner.id]


def test_two_services_of_one_process_are_two_owners() -> None:
    first, second = owners.this_process(), owners.this_process()
    assert first.id != second.id
    assert replace(first, id="") == replace(second, id="")
