"""The routes of files and batches."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import BodyPartReader, web

from embedding_pipeline_tests.fake_openai import bodies
from embedding_pipeline_tests.fake_openai.batches import Batches
from embedding_pipeline_tests.fake_openai.bodies import Answer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Refused(Exception):
    """Ends a handler with an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class _Router:
    """Routes whose handlers may refuse from anywhere."""

    def __init__(self, router: web.UrlDispatcher) -> None:
        self._router = router

    def on(self, method: str, path: str, handler: Handler) -> None:
        async def guarded(http: web.Request) -> web.StreamResponse:
            try:
                return await handler(http)
            except _Refused as refused:
                return _refused(refused.answer)

        self._router.add_route(method, path, guarded)


class BatchRoutes:
    """Handlers; ``server`` is asked anew each time, since a reset replaces its state."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_to(self, app: web.Application) -> None:
        router = _Router(app.router)
        router.on("POST", "/v1/files", self._upload)
        router.on("GET", "/v1/files", self._files)
        router.on("GET", "/v1/files/{id}", self._file)
        router.on("DELETE", "/v1/files/{id}", self._delete)
        router.on("GET", "/v1/files/{id}/content", self._content)
        router.on("POST", "/v1/batches", self._create)
        router.on("GET", "/v1/batches", self._list)
        router.on("GET", "/v1/batches/{id}", self._look)
        router.on("POST", "/v1/batches/{id}/cancel", self._cancel)

    @property
    def _batches(self) -> Batches:
        batches: Batches = self._server.batches
        return batches

    async def _upload(self, http: web.Request) -> web.Response:
        self._admit(http)
        name, purpose, content = "", "", b""
        async for part in await http.multipart():
            assert isinstance(part, BodyPartReader)
            read = bytes(await part.read(decode=False))
            if part.name == "file":
                name, content = part.filename or "", read
            elif part.name == "purpose":
                purpose = read.decode()
        kept = self._batches.upload(name, purpose, content)
        return _refused(kept) if isinstance(kept, Answer) else web.json_response(kept.shown())

    async def _files(self, http: web.Request) -> web.Response:
        self._admit(http)
        purpose = http.query.get("purpose")
        shown = [f.shown() for f in self._batches.files.values() if f.purpose == purpose]
        return _page(list(reversed(shown)), http)

    async def _file(self, http: web.Request) -> web.Response:
        self._admit(http)
        return web.json_response(self._find_file(http).shown())

    async def _delete(self, http: web.Request) -> web.Response:
        self._admit(http)
        file = self._find_file(http)
        del self._batches.files[file.id]
        return web.json_response({"id": file.id, "object": "file", "deleted": True})

    async def _content(self, http: web.Request) -> web.StreamResponse:
        self._admit(http)
        content, torn = self._batches.read(self._find_file(http))
        response = web.StreamResponse(headers={"content-type": "application/jsonl"})
        response.content_length = len(content)
        await response.prepare(http)
        await response.write(content[: len(content) // 2] if torn else content)
        if torn and http.transport is not None:
            http.transport.close()
        return response

    async def _create(self, http: web.Request) -> web.Response:
        self._admit(http)
        made = self._batches.create(await http.json(), self._server.books)
        if isinstance(made, Answer):
            return _refused(made)
        if self._batches.options.lost_creations and http.transport is not None:
            self._batches.options.lost_creations -= 1
            http.transport.abort()
        return web.json_response(made.shown)

    async def _list(self, http: web.Request) -> web.Response:
        self._admit(http)
        return _page([b.shown for b in reversed(self._batches.batches.values())], http)

    async def _look(self, http: web.Request) -> web.Response:
        self._admit(http)
        batch = self._find_batch(http)
        return web.json_response(self._batches.look(batch, self._server.books))

    async def _cancel(self, http: web.Request) -> web.Response:
        self._admit(http)
        return web.json_response(self._batches.cancel(self._find_batch(http)))

    def _admit(self, http: web.Request) -> None:
        key = http.headers.get("authorization", "").removeprefix("Bearer ")
        if key not in self._server.options.keys:
            raise _Refused(bodies.wrong_key(key))

    def _find_file(self, http: web.Request) -> Any:
        return _found(self._batches.files, http.match_info["id"])

    def _find_batch(self, http: web.Request) -> Any:
        return _found(self._batches.batches, http.match_info["id"])


def _found(things: dict[str, Any], name: str) -> Any:
    if name not in things:
        raise _Refused(bodies.refusal(404, f"No such object: {name}"))
    return things[name]


def _page(shown: list[dict[str, Any]], http: web.Request) -> web.Response:
    """Newest first, so many at a time, after the one that is named."""
    after, limit = http.query.get("after"), int(http.query.get("limit", "100"))
    start = next((i + 1 for i, one in enumerate(shown) if one["id"] == after), 0)
    part = shown[start : start + limit]
    more = start + limit < len(shown)
    ends = {"first_id": part[0]["id"], "last_id": part[-1]["id"]} if part else {}
    return web.json_response({"object": "list", "data": part, "has_more": more, **ends})


def _refused(answer: Answer) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, content_type=answer.content_type)
