"""Which settings go together.

Belongs here: rules over more than one key; a rule over one key stands with the key. Pure.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from embedding_pipeline.catalog import ModelSpec, find_model
from embedding_pipeline.embedders.config import ProviderConfig
from embedding_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings


def contradictions(settings: "Settings") -> Iterator[str]:
    """What cannot be meant together, one line each, with the key and the remedy."""
    yield from _odd_prices(settings)
    yield from _odd_storage(settings)
    try:
        spec = settings.model_spec
    except ConfigurationError as exc:
        yield f"embedding.model: {exc}"
        return
    wanted = settings.embedding.dimensions
    if wanted and wanted > spec.native_dimensions:
        yield (
            f"embedding.dimensions: {wanted} is more than the {spec.native_dimensions} "
            f"that {settings.embedding.model} has"
        )
    if wanted and wanted < spec.native_dimensions and not spec.supports_dimensions:
        yield (
            f"embedding.dimensions: vectors of {settings.embedding.model} cannot be shortened; "
            "leave it out"
        )
    if settings.source.kind != "demo" and settings.partitions.start_date is None:
        yield "partitions.start_date: needed for this source; set the day of the first partition"
    if settings.chunking.max_tokens > spec.max_input_tokens:
        yield (
            f"chunking.max_tokens: {settings.chunking.max_tokens} is more than the "
            f"{spec.max_input_tokens} that {settings.embedding.model} takes"
        )
    yield from _odd_providers(settings.providers)
    yield from _odd_budgets(settings, spec)
    yield from _odd_batches(settings, spec)
    yield from _odd_stand_ins(settings)


def _odd_storage(settings: "Settings") -> Iterator[str]:
    url = settings.data_url
    if url is None:
        return
    if "@" in url or "?" in url:
        yield "data_dir: an address only; credentials and options come from the environment"
    if settings.state_url is None:
        yield (
            "state_url: needed when data_dir is in an object store, which cannot hold the state; "
            "give a database, such as postgresql://user:password@host/name"
        )
    if settings.partitions.start_date is None and settings.source.kind == "demo":
        yield (
            "partitions.start_date: needed when data_dir is in an object store; set the day of "
            "the first partition"
        )


def _odd_prices(settings: "Settings") -> Iterator[str]:
    seen = set[str]()
    for index, price in enumerate(settings.prices):
        try:
            name = find_model(price.model).name
        except ConfigurationError as exc:
            yield f"prices.{index}.model: {exc}"
            continue
        if name in seen:
            yield f"prices.{index}.model: {price.model} has two prices; keep one"
        seen.add(name)


def _odd_budgets(settings: "Settings", spec: ModelSpec) -> Iterator[str]:
    if settings.budgets and spec.nano_usd_per_token is None:
        yield (
            f"budgets: the price of {spec.name} is not known, so nothing can be kept within a "
            "budget; give it in prices: [{model: "
            f"{spec.name}, usd_per_million_tokens: …, checked: the day you read it}}]"
        )
    seen = set[tuple[str, str]]()
    for index, budget in enumerate(settings.budgets):
        if (budget.scope, budget.period) in seen:
            yield (f"budgets.{index}: {budget.scope} has two limits for {budget.period}; keep one")
        seen.add((budget.scope, budget.period))


def _odd_batches(settings: "Settings", spec: ModelSpec) -> Iterator[str]:
    if settings.batch_api.mode == "off":
        return
    if spec.batch_nano_usd_per_token is None and settings.batch_api.mode == "on":
        yield (
            f"batch_api: {spec.name} has no Batch API, or its price there is not known; set "
            "batch_api to off, or give batch_usd_per_million_tokens in prices"
        )
    elif batch_provider(settings.providers) is None:
        yield (
            "batch_api: needs a provider of kind openai, and none is listed; add one, or set "
            "batch_api to off"
        )


def batch_provider(providers: Sequence[ProviderConfig]) -> ProviderConfig | None:
    """Who takes batches: the first provider of kind ``openai``; None where there is none."""
    able = [provider for provider in providers if provider.kind == "openai"]
    return min(able, key=lambda provider: provider.priority, default=None)


def _odd_providers(providers: Sequence[ProviderConfig]) -> Iterator[str]:
    if not providers:
        yield "providers: the list is empty; leave it out to use openai"
    elif all(provider.kind == "local" for provider in providers):
        yield (
            "providers: none of them serves a model by its API; name one of kind openai, azure or "
            "compatible, or leave the list out to use openai"
        )
    if sum(provider.kind == "local" for provider in providers) > 1:
        yield "providers: only one of kind local can stand in; keep one"
    names = [provider.name for provider in providers]
    for index, provider in enumerate(providers):
        if provider.kind == "compatible" and provider.base_url is None:
            yield f"providers.{index}.base_url: needed for kind compatible; say where it is"
        if provider.kind == "azure":
            yield from _odd_azure(index, provider)
        if provider.name in names[:index]:
            yield f"providers.{index}.name: {provider.name} is there twice; names must differ"


def _odd_stand_ins(settings: "Settings") -> Iterator[str]:
    for index, provider in enumerate(settings.providers):
        if provider.kind == "local":
            try:
                _ = settings.priced(settings.stand_in_model)
            except ConfigurationError as exc:
                yield f"providers.{index}.deployment: {exc}"


def _odd_azure(index: int, provider: ProviderConfig) -> Iterator[str]:
    wanted = "https://<resource>.openai.azure.com"
    if provider.base_url is None:
        yield f"providers.{index}.base_url: needed for kind azure; give {wanted}"
    elif urlsplit(provider.base_url).path.strip("/"):
        yield f"providers.{index}.base_url: give Azure's resource without a path: {wanted}"
