"""Finding out whether a provider is back: one short request, with all that holds for any other.

Belongs here: asking once, within bounds. Does not belong here: what follows from the answer
(``pipeline.recovery``).

The probe goes the way of all work: through the providers in order, the rate limit, the
budgets and the ledger. Only so does it show that work can go on, and is paid for in the
books. Its text is new each time, as one that is stored would be answered by the cache.
"""

import asyncio
import logging
from typing import Final

from embedding_pipeline.assembly.service import EmbeddingService
from embedding_pipeline.clock import Clock, SystemClock
from embedding_pipeline.embedders.config import RetryConfig
from embedding_pipeline.errors import BudgetExceeded, ProviderError
from embedding_pipeline.records import Priority
from embedding_pipeline.settings.tree import Settings

PROJECT: Final = "recovery"
"""Who pays for probes: ten tokens each."""

PROBE_SECONDS: Final = 20.0
ONE_TRY: Final = RetryConfig(max_attempts=1, max_seconds=5, timeout_seconds=15)

log = logging.getLogger(__name__)


async def answers(settings: Settings, clock: Clock | None = None) -> bool:
    """Whether a provider delivers a vector now, within ``PROBE_SECONDS``.

    Raises:
        ConfigurationError: the settings are wrong, or there is no key.
        StateError: the store cannot be used.
    """
    clock = clock or SystemClock()
    quick = settings.model_copy(update={"retry": ONE_TRY})
    text = f"Is anybody there? {clock.now():.3f}"
    try:
        async with EmbeddingService.open(quick, clock=clock) as service:
            async with asyncio.timeout(PROBE_SECONDS):
                await service.generate_embedding(text, project=PROJECT, priority=Priority.URGENT)
    except TimeoutError:
        log.info("the provider is out still: no answer within %g s", PROBE_SECONDS)
    except (ProviderError, BudgetExceeded) as error:
        log.info("the provider is out still: %s", error)
    else:
        return True
    return False
