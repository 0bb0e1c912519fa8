"""Calls after the first leave the SDK out: they are like the first in all but their body."""

import json
from typing import Any

import pytest
from aiohttp import web

from embedding_pipeline.catalog import find_model
from embedding_pipeline.embedders.openai import OpenAIEmbedder
from embedding_pipeline.errors import InputRefused, ProviderError
from embedding_pipeline_tests.embedders.conftest import MakeLeaf
from embedding_pipeline_tests.embedders.test_openai import own_server
from embedding_pipeline_tests.fake_openai.faults import REFUSALS, Fault
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI

pytestmark = pytest.mark.anyio


async def test_the_second_request_differs_from_the_first_in_its_body_alone() -> None:
    seen: list[tuple[str, dict[str, str], Any]] = []

    async def answer(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        seen.append((str(request.rel_url), dict(request.headers), body))
        return web.json_response({"error": {"message": "no"}}, status=400)

    async with (
        own_server(answer) as url,
        OpenAIEmbedder(find_model("text-embedding-3-small"), KEY, base_url=url) as leaf,
    ):
        for texts in (["one"], ["two", "and a longer one"]):
            with pytest.raises(InputRefused):
                await leaf.embed(texts)
    (first_url, first, first_body), (second_url, second, second_body) = seen
    assert (first_body["input"], second_body["input"]) == (["one"], ["two", "and a longer one"])
    assert first_url == second_url == "/v1/embeddings"
    assert int(second.pop("Content-Length")) > int(first.pop("Content-Length"))
    assert first == second


@pytest.mark.parametrize("kind", sorted(REFUSALS))
async def test_a_refusal_means_the_same_at_any_call(
    kind: str, make_leaf: MakeLeaf, fake_openai: FakeOpenAI
) -> None:
    fresh, used = make_leaf(), make_leaf()
    await used.embed(["first"])
    ends = []
    for leaf in (fresh, used):
        fake_openai.fault(Fault(kind, next=1, retry_after=3.0))
        with pytest.raises(ProviderError) as caught:
            await leaf.embed(["text", "another"])
        ends.append((type(caught.value), str(caught.value), caught.value.fault))
    assert ends[0] == ends[1]
