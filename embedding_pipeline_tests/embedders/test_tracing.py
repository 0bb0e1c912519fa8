"""Spans of a real run at a real receiver: every call is one, and no text or key is in them."""

import asyncio
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from embedding_pipeline.assembly import tracing
from embedding_pipeline.assembly.embedder import build_embedder
from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.embedders.tracing import TracingRequests, error_attributes
from embedding_pipeline.errors import MissingExtra, ProviderFault, RateLimited
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline_tests.embedders.otlp_receiver import attributes, receiving
from embedding_pipeline_tests.embedders.scripted import OK, Scripted, error
from embedding_pipeline_tests.engine.quick import MODEL, QuickClock, settings_for
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.server import KEY, FakeOpenAI

pytestmark = pytest.mark.anyio

TEXTS = [f"a marked text geheimnis {number}" for number in range(6)]


async def run(settings: Settings, texts: Sequence[str] = TEXTS) -> None:
    service = EmbeddingService(
        settings=settings,
        api_key=KEY,
        model=None,
        max_retries=None,
        batch_size=3,
        run_id="run-1",
        clock=QuickClock(),
    )
    async with service:
        assert len(await service.embed_many(texts, project="search")) == len(texts)


def wanted(folder: Path, fake: FakeOpenAI, *, enabled: bool = True) -> Settings:
    traces = {"enabled": enabled}
    return settings_for(folder, fake.base_url, requests={"max_inputs": 3}, traces=traces)


async def test_a_run_its_requests_and_every_call_are_spans(
    fake_openai: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_openai.fault(Fault("500", next=1))
    async with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        await run(wanted(tmp_path, fake_openai))
    assert receiver.services == {"embedding_pipeline"}
    (whole,) = (span for span in receiver.spans if not span.parent_span_id)
    assert attributes(whole)["embedding_pipeline.run_id"] == "run-1"
    requests = receiver.children(whole)
    assert [attributes(one)["embedding_pipeline.project"] for one in requests] == ["search"] * 2
    calls = [call for one in requests for call in receiver.children(one)]
    assert len(calls) == fake_openai.books.requests == 3
    assert len(receiver.spans) == 1 + len(requests) + len(calls)
    failed = [call for call in calls if call.status.code == Status.STATUS_CODE_ERROR]
    assert [attributes(call)["error.type"] for call in failed] == ["500"]
    paid = [attributes(call) for call in calls if call not in failed]
    assert all(call.items() >= the_usual(fake_openai).items() for call in paid)
    billed = sum(call["gen_ai.usage.input_tokens"] for call in paid)
    assert billed == fake_openai.books.tokens
    sent = b"".join(receiver.bodies)
    assert b"geheimnis" not in sent
    assert KEY.encode() not in sent


def the_usual(fake: FakeOpenAI) -> dict[str, object]:
    return {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": MODEL,
        "gen_ai.request.encoding_formats": ["base64"],
        "server.address": "127.0.0.1",
        "server.port": fake.port,
        "embedding_pipeline.inputs": 3,
    }


async def test_nothing_leaves_unless_it_is_wanted(
    fake_openai: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        await run(wanted(tmp_path, fake_openai, enabled=False))
    assert receiver.bodies == []
    assert fake_openai.books.requests


async def test_a_receiver_that_is_away_costs_spans_and_nothing_else(
    fake_openai: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as receiver:
        gone = receiver.url
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", gone)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    await run(wanted(tmp_path, fake_openai))
    assert fake_openai.books.requests == 2


async def test_the_error_names_the_extra(
    fake_openai: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingExtra, match=r"embedding-pipeline\[otel\]"):
        build_embedder(wanted(tmp_path, fake_openai), KEY, QuickClock())


class Kept:
    """Spans in memory."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.closed = 0

    @cached_property
    def tracer(self) -> trace.Tracer:
        return self.provider.get_tracer("theirs")

    def close(self) -> None:
        self.closed += 1


async def test_requests_join_the_span_of_their_caller() -> None:
    kept = Kept()
    async with TracingRequests(Scripted([OK]), kept, {}) as embedder:
        with kept.tracer.start_as_current_span("the caller's") as outer:
            await embedder.embed(["a"])
        await embedder.embed(["b"])
    first, caller, second, whole = kept.exporter.get_finished_spans()
    assert (first.name, caller.name, second.name) == ("request", "the caller's", "request")
    assert first.parent == outer.get_span_context()
    assert second.parent == whole.get_span_context()
    assert kept.closed == 1


async def test_a_request_that_is_cut_off_says_so() -> None:
    kept, leaf = Kept(), Scripted([OK])
    leaf.gate = asyncio.Event()
    embedder = TracingRequests(leaf, kept, {})
    asking = asyncio.ensure_future(embedder.embed(["geheimnis"]))
    await asyncio.sleep(0)
    assert leaf.calls == 1
    asking.cancel("geheimnis")
    with pytest.raises(asyncio.CancelledError):
        await asking
    await embedder.aclose()
    (span, _) = kept.exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["error.type"] == "CancelledError"
    assert "geheimnis" not in span.to_json()


def test_a_program_that_has_set_up_its_own_traces_gets_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = Kept()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: kept.provider)
    exported = tracing.Exported()
    exported.tracer.start_span("one").end()
    exported.close()
    assert [span.name for span in kept.exporter.get_finished_spans()] == ["one"]


def test_an_error_is_told_by_codes_and_never_by_its_message() -> None:
    fault = ProviderFault("p", 429, "tokens", "rate_limit_exceeded", 1.5, request_id="req_1")
    assert error_attributes(RateLimited("geheimnis", fault)) == {
        "error.type": "429",
        "http.response.status_code": 429,
        "embedding_pipeline.error.code": "rate_limit_exceeded",
        "embedding_pipeline.error.retry_after": 1.5,
        "embedding_pipeline.error.request_id": "req_1",
    }
    assert error_attributes(error(RateLimited))["error.type"] == "RateLimited"
    assert error_attributes(ValueError("geheimnis")) == {"error.type": "ValueError"}
