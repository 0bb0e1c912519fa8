"""The endpoint itself, and the control endpoints beside it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from embedding_pipeline_tests.fake_openai import bodies
from embedding_pipeline_tests.fake_openai.batch_routes import BatchRoutes
from embedding_pipeline_tests.fake_openai.batches import Batches
from embedding_pipeline_tests.fake_openai.bodies import Answer
from embedding_pipeline_tests.fake_openai.books import Books
from embedding_pipeline_tests.fake_openai.buckets import Limits, limits_from
from embedding_pipeline_tests.fake_openai.faults import (
    BILLED_WIRE,
    DOUBTFUL,
    REFUSALS,
    UNBILLED_WIRE,
    Fault,
    Schedule,
    refuse,
    schedule_from_json,
)
from embedding_pipeline_tests.fake_openai.replies import REPLIES, Replies, says_the_same, usage_of
from embedding_pipeline_tests.fake_openai.rules import MODELS, Request, check

KEY = "sk-fake-0123456789abcdef"
LARGEST_REQUEST = 256 * 2**20


@dataclass
class Options:
    """How the server behaves.

    Attributes:
        keys: keys it accepts.
        latency: seconds between a request and its answer.
        precomputed: serve a few vectors over and over, count tokens by bytes.
        deployments: Azure's names, each with its model.
        vectors_of: the model whose vectors it sends, whatever was asked for; "" for the one asked.
        reported: what its replies call the model; "" for the usual.
    """

    keys: tuple[str, ...] = (KEY,)
    latency: float = 0.0
    precomputed: bool = False
    deployments: Mapping[str, str] = field(default_factory=dict)
    vectors_of: str = ""
    reported: str = ""

    def disguise(self, request: Request) -> Request:
        """The request, with the model that really answers."""
        asked = request.model
        made_by = MODELS[self.vectors_of or asked.name]
        says = self.reported or asked.answers_as
        return replace(request, model=replace(made_by, price=asked.price, answers_as=says))


@dataclass
class FakeOpenAI:
    """A running server, seen from the process it runs in.

    Attributes:
        port: where it listens, on loopback.
        books: what it billed so far.
    """

    options: Options = field(default_factory=Options)
    books: Books = field(default_factory=Books)
    port: int = 0

    def __post_init__(self) -> None:
        self._limits = Limits()
        self._schedule = Schedule()
        self._replies = Replies(precomputed=self.options.precomputed)
        self.batches = Batches(self._replies)
        self._closing = asyncio.Event()

    @property
    def base_url(self) -> str:
        """What a client is to be given."""
        return f"{self.resource}/v1"

    @property
    def resource(self) -> str:
        """The same for a client of Azure."""
        return f"http://127.0.0.1:{self.port}"

    def fault(self, *faults: Fault, seed: int = 0) -> None:
        """Replace the faults; none ends them."""
        self._schedule = Schedule(faults, seed)

    def limit(self, **limits: Any) -> None:
        """Replace the limits with full buckets; see ``Limits``."""
        self._limits = Limits(**limits)

    def reset(self) -> None:
        """New books, no faults, no limits."""
        in_flight = self.books.in_flight
        self.books = Books(in_flight=in_flight)
        self.batches = Batches(self._replies)
        self.fault()
        self.limit()

    def application(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=LARGEST_REQUEST)
        for path in ("/v1/embeddings", "/openai/v1/embeddings"):
            app.router.add_post(path, self._embeddings)
        app.router.add_post("/openai/deployments/{deployment}/embeddings", self._embeddings)
        for path in ("/v1/models", "/openai/models"):
            app.router.add_get(path, self._get_models)
        BatchRoutes(self).add_to(app)
        app.router.add_get("/_books", self._get_books)
        app.router.add_get("/_batches", self._get_batches)
        app.router.add_post("/_faults", self._post_faults)
        app.router.add_post("/_limits", self._post_limits)
        app.router.add_post("/_options", self._post_options)
        app.router.add_post("/_batches", self._post_batches)
        app.router.add_post("/_reset", self._post_reset)
        app.on_shutdown.append(self._shut)
        return app

    async def _shut(self, app: web.Application) -> None:
        self._closing.set()

    async def _get_models(self, request: web.Request) -> web.Response:
        key = _key(request)
        if key not in self.options.keys:
            return _response(bodies.wrong_key(key))
        return web.json_response({"object": "list", "data": [{"id": name} for name in MODELS]})

    async def _get_books(self, request: web.Request) -> web.Response:
        return web.Response(text=self.books.to_json(), content_type="application/json")

    async def _get_batches(self, request: web.Request) -> web.Response:
        found = self.batches
        counts = {"batches": len(found.batches), "files": len(found.files)}
        return web.json_response(counts | {"most_pending": found.most_pending})

    async def _post_faults(self, request: web.Request) -> web.Response:
        self._schedule = schedule_from_json(await request.read())
        return web.Response()

    async def _post_limits(self, request: web.Request) -> web.Response:
        self._limits = limits_from(await request.read())
        return web.Response()

    async def _post_options(self, request: web.Request) -> web.Response:
        for name, value in json.loads(await request.read()).items():
            setattr(self.options, name, value)
        return web.Response()

    async def _post_batches(self, request: web.Request) -> web.Response:
        for name, value in json.loads(await request.read()).items():
            setattr(self.batches.options, name, value)
        return web.Response()

    async def _post_reset(self, request: web.Request) -> web.Response:
        self.reset()
        return web.Response()

    async def _embeddings(self, http: web.Request) -> web.StreamResponse:
        books, key = self.books, _key(http)
        books.arrive(key)
        status = "none"
        try:
            response = await self._answer(http, key)
            status = str(response.status)
            return response
        finally:
            books.leave(status)

    async def _answer(self, http: web.Request, key: str) -> web.StreamResponse:
        content = await http.read()
        if self.options.latency:
            await self._pause(self.options.latency)
        if key not in self.options.keys:
            return _response(bodies.wrong_key(key))
        if "deployment" in http.match_info:
            model = self._deployed(http)
            if model is None:
                return _response(bodies.unknown_deployment())
            content = json.dumps({**json.loads(content), "model": model}).encode()
        request = check(content, count_tokens=not self.options.precomputed)
        if isinstance(request, Answer):
            return _response(request)
        request = self.options.disguise(request)
        refused, headers = self._limits.admit(
            request.model.name, request.estimate, time.monotonic()
        )
        if refused is not None:
            return _response(refused, headers)
        fault = self._schedule.strike(request, content)
        if fault is not None:
            self.books.faults[fault.kind] += 1
            return await self._fail(http, request, fault, headers)
        self.books.bill(request)
        self.books.reported += request.tokens
        return _vectors(self._replies.whole(request), headers)

    def _deployed(self, http: web.Request) -> str | None:
        """Azure's way: the path names the deployment, the query the version, one header the key."""
        if "api-version" not in http.query or "api-key" not in http.headers:
            return None
        return self.options.deployments.get(http.match_info["deployment"])

    async def _fail(
        self, http: web.Request, request: Request, fault: Fault, headers: dict[str, str]
    ) -> web.StreamResponse:
        if fault.kind in REFUSALS:
            answer = refuse(fault, request)
            self.books.doubtful += request.tokens * (answer.status in DOUBTFUL)
            return _response(answer, headers)
        if fault.kind in UNBILLED_WIRE:
            self.books.doubtful += request.tokens
            return await self._break(http, fault)
        self.books.bill(request)
        body = self._replies.whole(request)
        if fault.kind in BILLED_WIRE:
            self.books.lost += request.tokens
            return await self._tear(http, fault, body)
        spoilt = REPLIES[fault.kind](body)
        if says_the_same(body, spoilt):
            self.books.reported += usage_of(spoilt)
        else:
            self.books.lost += request.tokens
        return _vectors(spoilt, headers)

    async def _break(self, http: web.Request, fault: Fault) -> web.StreamResponse:
        if fault.kind.endswith("hang"):
            await self._pause(fault.seconds)
        if http.transport is not None:
            http.transport.abort()
        return web.Response(status=499)

    async def _tear(self, http: web.Request, fault: Fault, body: bytes) -> web.StreamResponse:
        if fault.kind in ("billed_reset", "billed_hang"):
            return await self._break(http, fault)
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.content_length = len(body) + (100 if fault.kind == "short_length" else 0)
        await response.prepare(http)
        if fault.kind == "drip":
            await self._drip(response, body, fault.seconds)
        else:
            sent = body if fault.kind == "short_length" else body[: len(body) // 2]
            await response.write(sent)
            if http.transport is not None:
                http.transport.close()
        return response

    async def _drip(self, response: web.StreamResponse, body: bytes, seconds: float) -> None:
        """The body in 200 pieces over ``seconds``; ends when nobody reads any more."""
        size = max(1, len(body) // 200)
        try:
            for start in range(0, len(body), size):
                await response.write(body[start : start + size])
                await self._pause(seconds / 200)
        except (ConnectionError, OSError):
            return

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not beyond the server's end."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return


def _key(http: web.Request) -> str:
    authorization = http.headers.get("authorization", "")
    return http.headers.get("api-key") or authorization.removeprefix("Bearer ")


def _response(answer: Answer, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=answer.status,
        body=answer.body,
        headers={**(headers or {}), **answer.headers, "x-request-id": "req_fake"},
        content_type=answer.content_type,
    )


def _vectors(body: bytes, headers: dict[str, str]) -> web.Response:
    extra = {**headers, "x-request-id": "req_fake"}
    return web.Response(body=body, headers=extra, content_type="application/json")


@asynccontextmanager
async def listening(fake: FakeOpenAI, port: int = 0) -> AsyncIterator[FakeOpenAI]:
    """Serve on loopback while the context lasts."""
    runner = web.AppRunner(fake.application(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        fake.port = runner.addresses[0][1]
        yield fake
    finally:
        await runner.cleanup()
