"""Spans of OpenTelemetry: one for a request and its waits, one in it for each call it took.

Belongs here: the two wrappers and what their spans say. Does not belong here: where spans
go (``assembly.tracing``). Importing this module imports OpenTelemetry's API: do it on use.

A span holds names, counts and codes; never a text, a vector or a key, and no error's
message. Attributes follow OpenTelemetry's semantic conventions for generative AI (read in
version 1.37); those it has no word for begin with ``embedding_pipeline``.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Protocol, TypeAlias

from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)

from embedding_pipeline.embedders.base import Embedder, Wrapper
from embedding_pipeline.errors import ProviderError
from embedding_pipeline.limits.callers import current_caller
from embedding_pipeline.records import EmbeddingResult

Attributes: TypeAlias = Mapping[str, str | int | float | Sequence[str]]

OWN: Final = "embedding_pipeline"
OPERATION: Final = "embeddings"


class Spans(Protocol):
    """Where spans begin, and how to be sure that they have left."""

    @property
    def tracer(self) -> Tracer:
        """Begins spans."""

    def close(self) -> None:
        """Send what is left, within a bound. Blocks."""


class TracingCalls(Wrapper):
    """A span for each call to a provider: the innermost wrapper, so that no wait is in it.

    Args:
        wrapped: the provider itself.
        spans: where they begin.
        attributes: what holds for every call.
    """

    def __init__(self, wrapped: Embedder, spans: Spans, attributes: Attributes) -> None:
        super().__init__(wrapped)
        self._spans = spans
        self._attributes = attributes
        self._name = f"{OPERATION} {attributes['gen_ai.request.model']}"

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        attributes: Attributes = {**self._attributes, f"{OWN}.inputs": len(texts)}
        with _span(self._spans.tracer, self._name, SpanKind.CLIENT, attributes) as span:
            result = await self.wrapped.embed(texts)
            span.set_attribute("gen_ai.response.model", result.model)
            span.set_attribute("gen_ai.usage.input_tokens", result.usage.input_tokens)
        return result


class TracingRequests(Wrapper):
    """A span for each request, waits and repetitions included: the outermost wrapper.

    Requests are children of the span their caller is in; where he is in none, of a span
    for all of this embedder's life, that begins with its first request.

    Args:
        wrapped: the whole chain; closed with this.
        spans: where spans begin; closed with this.
        attributes: what holds for the whole life: the run, the space.
    """

    def __init__(self, wrapped: Embedder, spans: Spans, attributes: Attributes) -> None:
        super().__init__(wrapped)
        self._spans = spans
        self._attributes = attributes
        self._run: Span | None = None

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        caller = current_caller()
        attributes: Attributes = {
            f"{OWN}.inputs": len(texts),
            f"{OWN}.project": caller.project,
            f"{OWN}.priority": caller.priority.value,
        }
        tracer = self._spans.tracer
        with _span(tracer, "request", SpanKind.INTERNAL, attributes, self._parent()) as span:
            result = await self.wrapped.embed(texts)
            span.set_attribute(f"{OWN}.provider", result.provider)
            span.set_attribute(f"{OWN}.failed_calls", len(result.attempts))
            span.set_attribute(f"{OWN}.limited_seconds", result.limited_seconds)
        return result

    async def aclose(self) -> None:
        try:
            await self.wrapped.aclose()
        finally:
            run, self._run = self._run, None
            if run is not None:
                run.end()
                await asyncio.to_thread(self._spans.close)

    def _parent(self) -> Context | None:
        if get_current_span().get_span_context().is_valid:
            return None
        if self._run is None:
            self._run = self._spans.tracer.start_span(f"{OWN} run", attributes=self._attributes)
        return set_span_in_context(self._run)


@contextmanager
def _span(
    tracer: Tracer, name: str, kind: SpanKind, attributes: Attributes, parent: Context | None = None
) -> Iterator[Span]:
    """A span that says how it ended, and no word of the error's message."""
    with tracer.start_as_current_span(
        name,
        parent,
        kind=kind,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except BaseException as error:
            span.set_attributes(error_attributes(error))
            span.set_status(StatusCode.ERROR)
            raise


def error_attributes(error: BaseException) -> dict[str, str | int | float]:
    """What a span says of an error: its kind and codes. Pure."""
    found: dict[str, str | int | float] = {"error.type": type(error).__name__}
    if not isinstance(error, ProviderError):
        return found
    fault = error.fault
    if fault.status is not None:
        found["http.response.status_code"] = fault.status
        found["error.type"] = str(fault.status)
    if fault.code or fault.type:
        found[f"{OWN}.error.code"] = fault.code or fault.type or ""
    if fault.retry_after is not None:
        found[f"{OWN}.error.retry_after"] = fault.retry_after
    if fault.request_id:
        found[f"{OWN}.error.request_id"] = fault.request_id
    return found
