"""The tiers of the cache that settings add above the durable one.

Belongs here: choosing and joining. Does not belong here: what a tier does (``cache``).
"""

from collections.abc import Sequence
from typing import Final

from embedding_pipeline.cache.guarding import Guarded
from embedding_pipeline.cache.redis import Measured, RedisTier, measure, redis_client
from embedding_pipeline.cache.tier import CacheTier, NearTiers, no_tiers
from embedding_pipeline.clock import Clock
from embedding_pipeline.settings.tree import Settings

DAY_SECONDS: Final = 86_400


def near_tiers(settings: Settings, clock: Clock) -> NearTiers:
    """The shared tiers, nearest first: Redis where there is one.

    Raises:
        MissingExtra: redis_url is set and redis-py is not installed.
        ConfigurationError: redis_url is not a Redis URL.
    """
    url, space = settings.redis_url, settings.model_spec.space
    if not url:
        return no_tiers
    client = redis_client(url)
    ttl = max(round(settings.cache.redis_ttl_days * DAY_SECONDS), 1)

    def tiers(identity: str) -> Sequence[CacheTier]:
        tier = RedisTier(client, identity, space, settings.cache.dtype, ttl)
        return (Guarded(tier, space.native_dimensions, clock),)

    return tiers


async def measure_redis(settings: Settings) -> Measured:
    """What the Redis of the settings says of itself.

    Raises:
        StateError: it cannot be reached.
    """
    assert settings.redis_url is not None
    return await measure(redis_client(settings.redis_url))
