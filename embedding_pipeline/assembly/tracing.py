"""Traces by OpenTelemetry, where the settings want them: what is wrapped, and who sends.

Belongs here: choosing the exporter, and what is known about a provider. Does not belong here:
what spans say (``embedders.tracing``).

A program that has set up OpenTelemetry itself gets the spans as it gets its own. Otherwise
they leave by OTLP over HTTP, as the usual variables say (``OTEL_EXPORTER_OTLP_ENDPOINT``,
``OTEL_EXPORTER_OTLP_HEADERS``, ``OTEL_SERVICE_NAME``, …), from a thread of their own. A
receiver that is away costs spans, never a request.
"""

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.config import ProviderConfig
from embedding_pipeline.errors import MissingExtra
from embedding_pipeline.settings.tree import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Tracer

    from embedding_pipeline.embedders.tracing import Spans

CLOSING_SECONDS: Final = 5.0
"""Longest wait for a receiver at the end."""

SCOPE: Final = "embedding_pipeline"
SYSTEMS: Final = {"openai": "openai", "azure": "azure.ai.openai"}
"""What the conventions call them, by the provider's kind; others go by their own name."""


def build_spans(settings: Settings) -> "Spans | None":
    """Where spans begin; None where none are wanted. Nothing is connected yet.

    Raises:
        MissingExtra: they are wanted, and OpenTelemetry is not installed.
    """
    if not settings.traces.enabled:
        return None
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace  # noqa: F401 - that both are there
    except ImportError as exc:
        raise MissingExtra("traces.enabled", "otel") from exc
    return Exported()


def traced_calls(
    leaf: Embedder, spans: "Spans | None", provider: ProviderConfig, url: str
) -> Embedder:
    """The provider with a span around each call; as it is where no spans are wanted."""
    if spans is None:
        return leaf
    from embedding_pipeline.embedders.tracing import OPERATION, TracingCalls

    place = urlsplit(url)
    attributes: dict[str, str | int | tuple[str, ...]] = {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": SYSTEMS.get(provider.kind, provider.name),
        "gen_ai.request.model": provider.deployment or leaf.space.model,
        "gen_ai.request.encoding_formats": ("base64",),
        "gen_ai.embeddings.dimension.count": leaf.space.native_dimensions,
        "server.address": place.hostname or "",
        "server.port": place.port or (80 if place.scheme == "http" else 443),
    }
    return TracingCalls(leaf, spans, attributes)


def traced_requests(chain: Embedder, spans: "Spans | None", run_id: str) -> Embedder:
    """The whole chain with a span around each request, and one around them all."""
    if spans is None:
        return chain
    from embedding_pipeline.embedders.tracing import OWN, TracingRequests

    run = {f"{OWN}.run_id": run_id} if run_id else {}
    return TracingRequests(chain, spans, {f"{OWN}.space": str(chain.space), **run})


class Exported:
    """Spans of one embedder, from its first request to its end."""

    def __init__(self) -> None:
        self._processor: SpanProcessor | None = None

    @cached_property
    def tracer(self) -> "Tracer":
        """Of the program around us where it has set up OpenTelemetry, else our own."""
        from opentelemetry import trace

        theirs = trace.get_tracer_provider()
        if not isinstance(theirs, trace.ProxyTracerProvider):
            return theirs.get_tracer(SCOPE)
        return self._own()

    def _own(self) -> "Tracer":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME)).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: SCOPE}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._processor = BatchSpanProcessor(OTLPSpanExporter())
        provider.add_span_processor(self._processor)
        return provider.get_tracer(SCOPE)

    def close(self) -> None:
        """Send what is left; what a receiver does not take within seconds is lost."""
        if self._processor is None:
            return
        closing = threading.Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSING_SECONDS)
