"""PostgreSQL behind TLS: its certificate is believed or not, and time is not asked to help."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import make_url

from embedding_pipeline.errors import StateError, StateUnreachable
from embedding_pipeline.state.store import Store, schema_of
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.servers import postgres_server, postgres_url
from embedding_pipeline_tests.tls import certificate, postgres_behind_tls

__all__ = ["postgres_server", "postgres_url"]

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Guarded:
    """A server behind TLS.

    Attributes:
        ours: the CA that signed its certificate.
        other: a CA that did not.
    """

    url: str
    ours: Path
    other: Path

    def at(self, root: Path, mode: str = "verify-full", host: str = "localhost") -> str:
        """Its address, for a client that trusts ``root``."""
        url = make_url(self.url).set(host=host)
        query = {"sslmode": mode, "sslrootcert": str(root)}
        return url.set(query=query).render_as_string(hide_password=False)


@pytest.fixture
async def guarded(postgres_url: str, tmp_path: Path) -> AsyncIterator[Guarded]:
    url = make_url(postgres_url)
    ours, key = certificate(tmp_path, "ours")
    other, _ = certificate(tmp_path, "other")
    async with postgres_behind_tls(f"{url.query['host']}/.s.PGSQL.5432", ours, key) as port:
        where = url.set(port=port).render_as_string(hide_password=False)
        yield Guarded(where, ours, other)


async def failing(url: str) -> str:
    """What opening says, and looking at the schema; it is nothing to wait for."""
    with pytest.raises(StateError) as caught:
        await asyncio.to_thread(Store, url, FakeClock())
    with pytest.raises(StateError) as looked:
        await asyncio.to_thread(schema_of, url)
    assert {type(caught.value), type(looked.value)} == {StateError}
    assert str(looked.value) == str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
async def test_a_server_is_trusted_by_its_ca(guarded: Guarded, mode: str) -> None:
    store = await asyncio.to_thread(Store, guarded.at(guarded.ours, mode), FakeClock())
    assert await store.read(lambda c: c.exec_driver_sql("SELECT 1").scalar()) == 1
    await asyncio.to_thread(store.close)


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
async def test_and_by_no_other(guarded: Guarded, mode: str) -> None:
    said = await failing(guarded.at(guarded.other, mode))
    assert "certificate is not trusted" in said
    assert "sslrootcert=" in said


async def test_nor_under_another_name(guarded: Guarded) -> None:
    said = await failing(guarded.at(guarded.ours, host="127.0.0.1"))
    assert "by the name in its certificate" in said


async def test_a_missing_file_is_named(guarded: Guarded, tmp_path: Path) -> None:
    said = await failing(guarded.at(tmp_path / "nowhere.pem"))
    assert "nowhere.pem cannot be read (FileNotFoundError)" in said
    assert "sslrootcert" in said


async def test_a_store_that_is_open_does_not_wait_for_another_certificate(
    guarded: Guarded,
) -> None:
    clock = FakeClock()
    store = await asyncio.to_thread(Store, guarded.at(guarded.ours), clock)
    await asyncio.to_thread(store._engine.dispose)
    guarded.ours.write_bytes(guarded.other.read_bytes())
    with pytest.raises(StateError, match="certificate is not trusted"):
        await store.write(lambda c: c.exec_driver_sql("SELECT 1"))
    assert clock.sleeps == []
    await asyncio.to_thread(store.close)


async def test_a_server_without_tls_says_so(guarded: Guarded) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(8)
        writer.write(b"N")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = make_url(guarded.at(guarded.ours)).set(port=port)
        assert "it has no TLS" in await failing(url.render_as_string(hide_password=False))


async def test_a_server_that_is_away_is_away_over_tls_too(guarded: Guarded) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = make_url(guarded.at(guarded.ours)).set(port=taken.getsockname()[1])
        with pytest.raises(StateUnreachable):
            await asyncio.to_thread(Store, url.render_as_string(hide_password=False), FakeClock())
