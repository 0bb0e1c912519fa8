"""The service users open: settings in, a working ``EmbeddingService`` out.

Belongs here: choosing and joining parts. Does not belong here: reading files or the
environment (``settings``), or any work.
"""

from collections.abc import Mapping
from typing import Any, Final, Self

from embedding_pipeline.assembly.cache import near_tiers
from embedding_pipeline.assembly.embedder import build_embedder
from embedding_pipeline.assembly.memory import share_one_heap
from embedding_pipeline.assembly.parts import build_budgets, build_counter
from embedding_pipeline.catalog import ModelSpec
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import Kind
from embedding_pipeline.service.config import ServiceConfig
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.service.keeping import Bound
from embedding_pipeline.service.preparing import InputRules
from embedding_pipeline.settings.environment import api_key
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.recipe import fingerprint, recipe
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.store import Store

LOCAL_IN_FLIGHT: Final = 2
"""Requests a local model works on at once: more would only wait for the same cores."""

LOCAL_MAX_INPUTS: Final = 256
"""Texts in one request to a local model: what is stored, and lost by a kill, at a time."""


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
        embedder = build_embedder(chosen, key, clock, run_id=run_id)
        tiers = near_tiers(chosen, clock)
        store = Store(chosen.state, clock)
        super().__init__(service_config(chosen, run_id), store, embedder, clock, tiers)

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
    share_one_heap()
    return EmbeddingService.open(settings, run_id=run_id, clock=clock)


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
        bound=cache_bound(settings),
        patience_seconds=settings.retry.max_seconds + settings.retry.timeout_seconds,
        run_id=run_id,
        fingerprint=fingerprint(settings),
        budgets=build_budgets(settings),
        recipe=recipe(settings),
        defers_outages=settings.on_outage != "fail",
    )


def cache_bound(settings: Settings) -> Bound:
    """The bound on the durable tier, in bytes."""
    cache = settings.cache
    return Bound(None if cache.max_gb is None else round(cache.max_gb * 1e9), cache.evict_active)


def _bucket(tokens_per_minute: int | None, spec: ModelSpec) -> int | None:
    """The provider's bucket holds a minute's worth: a larger request would never pass."""
    if tokens_per_minute is None or spec.is_local:
        return None
    return max(tokens_per_minute, spec.max_input_tokens)


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
