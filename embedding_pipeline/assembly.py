"""The composition root: settings in, working parts out, in one stated order.

Belongs here: choosing and joining parts. Does not belong here: reading files or the
environment (``settings``), or any work.

Order of the embedder's wrappers, outermost first:
retrying → breaking → stopping at a refused key → limiting → the provider itself.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from embedding_pipeline.catalog import ModelSpec
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.limits.base import LimitStore
from embedding_pipeline.limits.callers import Tenants
from embedding_pipeline.limits.database import DatabaseLimits
from embedding_pipeline.limits.limiter import Limiter
from embedding_pipeline.limits.protocol import Terms
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import Kind, Space
from embedding_pipeline.service.core import ServiceConfig, ServiceCore
from embedding_pipeline.service.preparing import InputRules
from embedding_pipeline.settings import Settings, api_key, base_url, load_settings, pin_demo_start
from embedding_pipeline.sources.base import ChunkSource
from embedding_pipeline.sources.opening import open_source
from embedding_pipeline.state.store import Store
from embedding_pipeline.tokens import TokenCounter, default_counter
from embedding_pipeline.vectors.datasets import Datasets

if TYPE_CHECKING:
    import pyarrow as pa

VECTORS_VERSION: Final = 1
"""Raised when this code would make other vectors, or other chunks, from the same input."""

LOCAL_IN_FLIGHT: Final = 2
"""Requests a local model works on at once: more would only wait for the same cores."""
LOCAL_MAX_INPUTS: Final = 256
"""Texts in one request to a local model: what is stored, and lost by a kill, at a time."""

ACTIVE: Final = "active"

DEFAULT_HOST: Final = "https://api.openai.com/v1"


def build_datasets(settings: Settings) -> Datasets:
    """The datasets under ``data_dir``."""
    return Datasets(settings.data_path)


def build_counter(settings: Settings) -> TokenCounter:  # noqa: ARG001 - the seam for a choice
    """The token counter."""
    return default_counter()


def build_source(settings: Settings) -> ChunkSource:
    """The source the settings name. The demo's first day is kept from here on."""
    if settings.source.kind == "demo":
        pin_demo_start(settings)
    return open_source(settings.source, settings.start_date)


def build_embedder(settings: Settings, key: str | None, clock: Clock) -> Embedder:
    """The model's embedder in its wrappers. Nothing is loaded or connected yet.

    Raises:
        ConfigurationError: the model needs a key and there is none.
    """
    spec = settings.model_spec
    if spec.is_local:
        from embedding_pipeline.embedders.local import LocalEmbedder

        return LocalEmbedder(build_counter(settings).count)
    return _remote(settings, spec, key, clock)


def _remote(settings: Settings, spec: ModelSpec, key: str | None, clock: Clock) -> Embedder:
    from embedding_pipeline.embedders.breaking import Breaking
    from embedding_pipeline.embedders.config import BreakerConfig
    from embedding_pipeline.embedders.limiting import Limiting
    from embedding_pipeline.embedders.openai import OpenAIEmbedder
    from embedding_pipeline.embedders.retrying import Retrying
    from embedding_pipeline.embedders.stopping import Stopping

    provider = settings.provider
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
        timeout_seconds=settings.retry.timeout_seconds,
        max_connections=settings.limits.max_in_flight,
        clock=clock,
    )
    limited = Limiting(leaf, build_limiter(settings, clock))
    broken = Breaking(Stopping(limited, clock), provider.name, BreakerConfig(), clock)
    return Retrying(broken, settings.retry, clock, random.Random())  # noqa: S311 - jitter


def build_limiter(settings: Settings, clock: Clock) -> Limiter:
    """This process's part in the rate limit of the provider's account and model."""
    limits, provider = settings.limits, settings.provider
    host = urlsplit(base_url(provider) or DEFAULT_HOST).netloc
    model = provider.deployment or settings.model_spec.space.model
    return Limiter(
        build_limit_store(settings, clock),
        f"{host}/{provider.api_key_env}/{model}"[:255],
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


def build_limit_store(settings: Settings, clock: Clock) -> LimitStore:
    """Where all processes share their rate limits: Redis where there is one, else the state."""
    if settings.redis_url:
        from embedding_pipeline.limits.redis import RedisLimits

        return RedisLimits(settings.redis_url)
    return DatabaseLimits(lambda: Store(settings.state, clock), clock)


class EmbeddingService(ServiceCore):
    """Turns texts into vectors: cached, batched, retried and accounted for.

    ::

        async with EmbeddingService.open() as service:
            vector = await service.generate_embedding("some text", project="docs")

    ``EmbeddingService(api_key=…, model="text-embedding-3-small")`` is the same service
    with the settings' defaults and what is named in the call.

    Args:
        api_key: the provider's key; None takes it from the environment.
        model: ``text-embedding-3-small``, ``openai/…`` or ``local/…``.
        max_retries: failed calls of one request before giving up, after the first.
        batch_size: most texts in one request.
        settings: everything else; None reads file and environment.
        run_id: recorded with every ledger entry.
        clock: time.

    Raises:
        ConfigurationError: the settings are wrong, or the model needs a key.
        StateError: the state store cannot be opened.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        model: str | None = "text-embedding-3-small",
        max_retries: int | None = 3,
        batch_size: int | None = 100,
        settings: Settings | None = None,
        run_id: str = "",
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        chosen = settings or load_settings(_named(model, max_retries, batch_size))
        key = api_key or _key(chosen)
        embedder = build_embedder(chosen, key, clock)
        super().__init__(
            service_config(chosen, run_id), Store(chosen.state, clock), embedder, clock
        )

    @classmethod
    def open(
        cls, settings: Settings | None = None, *, run_id: str = "", clock: Clock | None = None
    ) -> Self:
        """A service as the settings say (None: file and environment); use it in ``async with``."""
        return cls(settings=settings or load_settings(), run_id=run_id, clock=clock)


def open_service(
    settings: Settings, *, run_id: str = "", clock: Clock | None = None
) -> EmbeddingService:
    """The service of one run; use it in ``async with``."""
    return EmbeddingService.open(settings, run_id=run_id, clock=clock)


@contextmanager
def open_store(settings: Settings, clock: Clock | None = None) -> Iterator[Store]:
    """The shared store alone, for what needs no embedder."""
    with Store(settings.state, clock or SystemClock()) as store:
        yield store


def service_config(settings: Settings, run_id: str) -> ServiceConfig:
    """The settings in the service's own words."""
    spec = settings.model_spec
    requests, limits = settings.requests, settings.limits
    rules = InputRules(requests.oversize, spec.max_input_tokens, build_counter(settings))
    local = spec.is_local
    return ServiceConfig(
        spec=spec,
        kind=Kind.LOCAL if local else Kind.API,
        provider="local" if local else settings.provider.name,
        dimensions=settings.dimensions,
        caps=RequestCaps(
            max_inputs=min(requests.max_inputs, LOCAL_MAX_INPUTS) if local else requests.max_inputs,
            max_input_tokens=spec.max_input_tokens,
            target_tokens=requests.target_tokens,
            bucket=_bucket(limits.tokens_per_minute, spec),
        ),
        rules=rules,
        max_in_flight=min(limits.max_in_flight, LOCAL_IN_FLIGHT) if local else limits.max_in_flight,
        max_wait_seconds=requests.max_wait_ms / 1000,
        memory_bytes=settings.cache.memory_mb << 20,
        dtype=settings.cache.dtype,
        patience_seconds=settings.retry.max_seconds + settings.retry.timeout_seconds,
        run_id=run_id,
        fingerprint=fingerprint(settings),
    )


def _bucket(tokens_per_minute: int | None, spec: ModelSpec) -> int | None:
    """The provider's bucket holds a minute's worth: a larger request would never pass."""
    if tokens_per_minute is None or spec.is_local:
        return None
    return max(tokens_per_minute, spec.max_input_tokens)


def fingerprint(settings: Settings) -> str:
    """16 hex characters that change when the same source would give other vectors."""
    shaping = {
        "version": VECTORS_VERSION,
        "space": str(settings.model_spec.space),
        "dimensions": settings.dimensions,
        "chunking": settings.chunking.model_dump(mode="json"),
        "dedup": settings.dedup.model_dump(mode="json"),
        "oversize": settings.requests.oversize,
    }
    text = json.dumps(shaping, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def resolve_space(settings: Settings, space: str) -> Space:
    """The space a reader means: ``active`` (the settings' model) or a space by name.

    Raises:
        ConfigurationError: it is neither.
    """
    if space == ACTIVE:
        return settings.model_spec.space
    try:
        return Space.parse(space)
    except ValueError as exc:
        raise ConfigurationError(f"{exc}; write it like {settings.model_spec.space}") from exc


def read_vectors(
    start: str,
    end: str,
    *,
    space: str = ACTIVE,
    fan_out: bool = True,
    with_text: bool = False,
    settings: Settings | None = None,
) -> "pa.Table":
    """The vectors of the days ``start`` to ``end``, both included, as one Arrow table.

    Args:
        start: first day, ``YYYY-MM-DD``.
        end: last day.
        space: ``active``, or the name of a space.
        fan_out: every raw chunk has a row, duplicates with their representative's vector.
        with_text: add the column ``text``.
        settings: None reads file and environment.

    Returns:
        Columns ``chunk_id``, ``document_id``, ``project``, ``content_hash``, ``vector``
        (fixed-size list of float32) and, if asked for, ``text``.

    Raises:
        DataError: a day is missing, damaged, or of another space.
    """
    from embedding_pipeline.vectors import reader

    chosen = settings or load_settings()
    return reader.read_vectors(
        build_datasets(chosen),
        resolve_space(chosen, space),
        start,
        end,
        dimensions=chosen.dimensions,
        fan_out=fan_out,
        with_text=with_text,
    )


def _named(
    model: str | None, max_retries: int | None, batch_size: int | None
) -> Mapping[str, Mapping[str, Any]]:
    sections: dict[str, dict[str, Any]] = {}
    if model is not None:
        name = model if "/" in model else f"openai/{model}"
        sections["embedding"] = {"model": name}
    if max_retries is not None:
        sections["retry"] = {"max_attempts": max_retries + 1}
    if batch_size is not None:
        sections["requests"] = {"max_inputs": batch_size}
    return sections


def _key(settings: Settings) -> str | None:
    secret = api_key(settings.provider)
    return secret.get_secret_value() if secret else None
