"""A receiver of webhooks over real HTTP, that can be slow, broken or away."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

PATH = "/services/T0/B0/geheim"


@dataclass
class Receiver:
    """What it got, and how it answers.

    Attributes:
        texts: messages it took with 200.
        asked: requests it saw, on any path.
        status: what it answers with.
        delay: seconds before it answers.
        headers: of its answer.
        url: where it is; a secret.
    """

    texts: list[str] = field(default_factory=list)
    asked: int = 0
    status: int = 200
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        """Answer one request."""
        self.asked += 1
        body = json.loads(await request.text() or "{}")
        await asyncio.sleep(self.delay)
        if self.status == 200:
            assert request.path == PATH
            self.texts.append(body["text"])
        return web.Response(status=self.status, headers=self.headers, text="ok")


def bound() -> socket.socket:
    """A port of our own on loopback, at which nobody listens yet."""
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


def address_of(place: socket.socket) -> str:
    """What is to be kept secret of it."""
    return f"http://127.0.0.1:{place.getsockname()[1]}{PATH}"


@asynccontextmanager
async def receiving(at: socket.socket | None = None) -> AsyncIterator[Receiver]:
    """A receiver while the block runs; on a port of its own, or where it is told."""
    place = at or bound()
    receiver = Receiver(url=address_of(place))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    await web.SockSite(runner, place).start()
    try:
        yield receiver
    finally:
        await runner.cleanup()
