"""The embedder in its wrappers, in one stated order, and the rate limit it obeys.

Belongs here: choosing and joining. Does not belong here: what a wrapper does (``embedders``).

Order of the wrappers, outermost first:
retrying → fallback → per provider [breaking → stopping at a refused key → limiting → leaf].
Retrying stands around all providers: nobody waits while another one can answer. With one
provider there is no fallback. Spans, where they are wanted, stand around all of it and
around each leaf.
"""

import random
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from embedding_pipeline.assembly.parts import build_counter
from embedding_pipeline.assembly.tracing import build_spans, traced_calls, traced_requests
from embedding_pipeline.catalog import ModelSpec
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.config import ProviderConfig
from embedding_pipeline.embedders.local_models import is_local_model
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.limits.base import LimitStore
from embedding_pipeline.limits.callers import Tenants
from embedding_pipeline.limits.database import DatabaseLimits
from embedding_pipeline.limits.enduring import Enduring
from embedding_pipeline.limits.limiter import Limiter
from embedding_pipeline.limits.protocol import Terms
from embedding_pipeline.settings.environment import api_key, base_url
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.store import Store

if TYPE_CHECKING:
    from embedding_pipeline.embedders.fallback import Route
    from embedding_pipeline.embedders.tracing import Spans

DEFAULT_HOST: Final = "https://api.openai.com/v1"


def build_embedder(
    settings: Settings, key: str | None, clock: Clock, *, run_id: str = ""
) -> Embedder:
    """The model's embedder in its wrappers. Nothing is loaded or connected yet.

    Raises:
        ConfigurationError: the model needs a key and there is none; or traces are wanted, and
            what sends them is not installed.
    """
    spec = settings.model_spec
    if spec.is_local:
        return build_local(settings, spec.name)
    spans = build_spans(settings)
    return traced_requests(_remote(settings, spec, key, clock, spans), spans, run_id)


def build_local(settings: Settings, model: str) -> Embedder:
    """A model that runs in this process.

    Raises:
        ConfigurationError: there is no such model here, or what runs it is not installed.
    """
    count = build_counter(settings).count
    if is_local_model(model):
        from embedding_pipeline.embedders.sentences import SentenceEmbedder

        return SentenceEmbedder(settings.local_model(model), count)
    from embedding_pipeline.embedders.local import LocalEmbedder

    return LocalEmbedder(count)


def _remote(
    settings: Settings, spec: ModelSpec, key: str | None, clock: Clock, spans: "Spans | None"
) -> Embedder:
    from embedding_pipeline.embedders.fallback import Fallback
    from embedding_pipeline.embedders.retrying import Retrying

    first, *others = in_order(settings)
    routes = [_route(settings, spec, first, key, clock, spans)]
    routes += [_route(settings, spec, other, _key(other), clock, spans) for other in others]
    asked = Fallback(_vouched_for(settings, routes, clock)) if others else routes[0].breaking
    return Retrying(asked, settings.retry, clock, random.Random())  # noqa: S311 - jitter


def _vouched_for(settings: Settings, routes: "list[Route]", clock: Clock) -> "list[Route]":
    """Compatible servers beside others are checked before they are used."""
    from embedding_pipeline.assembly.vouching import vouched_for

    unproven = {one.name: one for one in settings.providers if one.kind == "compatible"}
    if not unproven:
        return routes
    return vouched_for(settings, routes, unproven, clock)


def _route(
    settings: Settings,
    spec: ModelSpec,
    provider: ProviderConfig,
    key: str | None,
    clock: Clock,
    spans: "Spans | None",
) -> "Route":
    """One provider's own chain."""
    from embedding_pipeline.circuit import BreakerConfig
    from embedding_pipeline.embedders.breaking import Breaking
    from embedding_pipeline.embedders.fallback import Route
    from embedding_pipeline.embedders.limiting import Limiting
    from embedding_pipeline.embedders.openai import Azure, OpenAIEmbedder
    from embedding_pipeline.embedders.stopping import Stopping

    if not key:
        raise ConfigurationError(
            f"embedding.model is {spec.name}, but the environment variable "
            f"{provider.api_key_env} holds no key; set it, or choose a local model"
        )
    leaf = OpenAIEmbedder(
        spec,
        key,
        provider=provider.name,
        base_url=base_url(provider),
        deployment=provider.deployment,
        azure=Azure(provider.api_version) if provider.kind == "azure" else None,
        timeout_seconds=settings.retry.timeout_seconds,
        max_connections=settings.limits.max_in_flight,
        clock=clock,
    )
    called = traced_calls(leaf, spans, provider, base_url(provider) or DEFAULT_HOST)
    stopping = Stopping(Limiting(called, build_limiter(settings, clock, provider)), clock)
    return Route(provider.name, Breaking(stopping, provider.name, BreakerConfig(), clock), stopping)


def in_order(settings: Settings) -> list[ProviderConfig]:
    """The providers, the one asked first first; of one priority, as they are listed."""
    return list(settings.remote_providers)


def _key(provider: ProviderConfig) -> str | None:
    secret = api_key(provider)
    return secret.get_secret_value() if secret else None


def build_limiter(
    settings: Settings, clock: Clock, provider: ProviderConfig | None = None
) -> Limiter:
    """This process's part in the rate limit of a provider's account and model."""
    limits, provider = settings.limits, provider or settings.provider
    return Limiter(
        build_limit_store(settings, clock),
        limit_key(settings, provider),
        provider.name,
        Terms(
            tokens=limits.tokens_per_minute or 0,
            requests=limits.requests_per_minute or 0,
            burst=round(limits.burst_seconds * 1000),
            ramp=int(limits.ramp),
        ),
        clock,
        tenants=Tenants(settings.tenants),
        max_wait_seconds=limits.max_wait_seconds,
    )


def limit_key(settings: Settings, provider: ProviderConfig | None = None) -> str:
    """The name of the rate limit that requests to a provider share: account and model."""
    provider = provider or settings.provider
    host = urlsplit(base_url(provider) or DEFAULT_HOST).netloc
    model = provider.deployment or settings.model_spec.space.model
    return f"{host}/{provider.api_key_env}/{model}"[:255]


def build_limit_store(settings: Settings, clock: Clock) -> LimitStore:
    """Where all processes share their rate limits: Redis where there is one, else the state."""
    if settings.redis_url:
        from embedding_pipeline.limits.redis import RedisLimits

        return Enduring(RedisLimits(settings.redis_url), clock)
    return DatabaseLimits(lambda: Store(settings.state, clock, rows=True), clock)
