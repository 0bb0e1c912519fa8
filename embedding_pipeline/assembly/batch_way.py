"""Whether the settings lead to the Batch API, and whom they take it from.

Belongs here: what can be said without a call, and without loading a client. Does not belong
here: sending anything (``batching``), or the rule (``batch_api.decision``).
"""

from embedding_pipeline.assembly.embedder import limit_key
from embedding_pipeline.batch_api.decision import Verdict, decide
from embedding_pipeline.embedders.config import ProviderConfig
from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.settings.rules import batch_provider
from embedding_pipeline.settings.tree import Settings


def verdict_of(settings: Settings, tokens: int) -> Verdict:
    """How work of so many tokens is sent."""
    spec = settings.model_spec
    price, batch_price = spec.nano_usd_per_token, spec.batch_nano_usd_per_token
    if spec.is_local or batch_provider(settings.providers) is None:
        batch_price = None
    return decide(settings.batch_api, tokens, price, batch_price)


def provider_of(settings: Settings) -> ProviderConfig:
    """Who takes batches. Raises ConfigurationError where nobody does."""
    spec, provider = settings.model_spec, batch_provider(settings.providers)
    if spec.is_local or spec.batch_nano_usd_per_token is None:
        raise ConfigurationError(
            f"{spec.name} has no Batch API, or its price there is not known; choose another "
            "model, or give batch_usd_per_million_tokens in prices"
        )
    if provider is None:
        raise ConfigurationError(
            "the Batch API needs a provider of kind openai, and none is listed in providers"
        )
    return provider


def queue_of(settings: Settings) -> str:
    """The queue that batches of the settings' model wait in: an account and a model."""
    return limit_key(settings, provider_of(settings))
