"""``rediss://``: a server behind TLS is used when its CA is ours, and refused when it is not.

The packaged server has no TLS of its own; a proxy on loopback ends it.
"""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from embedding_pipeline.cache.redis import measure, redis_client
from embedding_pipeline.errors import StateError
from embedding_pipeline.limits.enduring import Enduring
from embedding_pipeline.limits.redis import RedisLimits
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.limits.test_enduring import TERMS, WANTS

pytestmark = pytest.mark.anyio


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for localhost that is its own CA, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program, which makes the certificate, is not installed")
    made, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)]
    command += ["-addext", "subjectAltName=DNS:localhost", "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made, key


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def behind_tls(socket: str, made: Path, key: Path) -> AsyncIterator[int]:
    """TLS on a port of loopback in front of a UNIX socket."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner = await asyncio.open_unix_connection(socket)
        await asyncio.gather(_pump(reader, inner), _pump(inner_reader, writer))

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def test_redis_is_trusted_by_its_ca_and_by_no_other(
    redis_url: str, tmp_path: Path, clock: FakeClock
) -> None:
    made, key = certificate(tmp_path, "ours")
    other, _ = certificate(tmp_path, "other")
    async with behind_tls(redis_url.removeprefix("unix://"), made, key) as port:
        address = f"rediss://localhost:{port}/0?ssl_ca_certs="
        right, wrong = RedisLimits(f"{address}{made}"), RedisLimits(f"{address}{other}")
        assert await right.states() == {}
        assert (await measure(redis_client(f"{address}{made}"))).where == "localhost"
        with pytest.raises(StateError, match=r"rate limits .* not trusted; name the CA's file"):
            await Enduring(wrong, clock).exchange("k", TERMS, WANTS)
        assert clock.sleeps == [], "that does not pass by itself"
        with pytest.raises(StateError, match=r"cache .* not trusted; name the CA's file"):
            await measure(redis_client(f"{address}{other}"))
        await right.aclose()
        await wrong.aclose()
