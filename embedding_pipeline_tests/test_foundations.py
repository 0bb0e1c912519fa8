"""The ground the suite stands on holds: the network guard, the environment, the fake clock."""

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.network_guard import NetworkForbiddenError, is_local

pytestmark = pytest.mark.anyio

OUTSIDE = "192.0.2.1"  # TEST-NET-1: documentation only, routed nowhere


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost", b"localhost", None])
def test_this_machine_is_local(host: object) -> None:
    assert is_local(host)


@pytest.mark.parametrize("host", [OUTSIDE, "10.0.0.1", "api.openai.com", "fe80::1%eth0"])
def test_anything_else_is_not(host: str) -> None:
    assert not is_local(host)


def test_a_connection_outside_is_refused_before_it_is_made() -> None:
    with socket.socket() as client, pytest.raises(NetworkForbiddenError, match=r"192\.0\.2\.1"):
        client.connect((OUTSIDE, 443))


def test_a_name_outside_is_not_even_looked_up() -> None:
    with pytest.raises(NetworkForbiddenError, match=r"api\.openai\.com"):
        socket.getaddrinfo("api.openai.com", 443)


async def test_asyncio_cannot_leave_either() -> None:
    with pytest.raises(NetworkForbiddenError):
        await asyncio.open_connection(OUTSIDE, 443)


def test_loopback_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            assert client.getpeername()[1] == port


def test_a_child_process_is_guarded_too() -> None:
    code = f"import socket; socket.create_connection(({OUTSIDE!r}, 443), timeout=1)"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert child.returncode == 1
    assert "NetworkForbiddenError" in child.stderr


def test_no_key_and_no_settings_of_the_person_who_runs_the_suite() -> None:
    assert not [name for name in os.environ if name.startswith(("OPENAI_", "DAGSTER_HOME"))]


async def test_sleepers_wake_in_the_order_of_their_deadlines(clock: FakeClock) -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.elapsed))

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("long", 3600))
        group.create_task(sleeper("short", 1, 1, 5000))
        group.create_task(sleeper("nothing", 0))

    assert woken == [
        ("nothing", 0.0),
        ("short", 1.0),
        ("short", 2.0),
        ("long", 3600.0),
        ("short", 5002.0),
    ]
    assert sorted(clock.sleeps) == [0, 1, 1, 3600, 5000]


async def test_a_cancelled_sleeper_does_not_hold_time_back(clock: FakeClock) -> None:
    impatient = asyncio.create_task(clock.sleep(10))
    await asyncio.sleep(0)
    impatient.cancel()
    await clock.sleep(20)
    assert clock.elapsed == 20
    assert impatient.cancelled()


async def test_two_sleepers_with_one_deadline_both_wake(clock: FakeClock) -> None:
    await asyncio.gather(clock.sleep(5), clock.sleep(5))
    assert clock.elapsed == 5
