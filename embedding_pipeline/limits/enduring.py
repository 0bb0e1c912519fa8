"""A store of limits that may be away for a while: runs wait for it instead of ending.

Belongs here: the wrapper. Does not belong here: a store, or how long one request may wait
for its permit when the store answers (``limiter``).

Nothing is sent meanwhile, since nobody knows what others send; and the wait has an end.
"""

import logging
from collections.abc import Mapping
from typing import Final

from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import StateUnreachable
from embedding_pipeline.limits.base import LimitStore
from embedding_pipeline.limits.protocol import Answer, Ask, Terms
from embedding_pipeline.limits.state import State

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 120.0
"""Longest outage that is waited out: a restart, or a standby taking over."""

FIRST_SECONDS: Final = 30.0
"""The same for a store that has not answered yet: perhaps there is none at that address."""

PAUSES: Final = (0.25, 5.0)
"""First and longest pause between two tries."""


class Enduring(LimitStore):
    """Asks ``wrapped`` again while it cannot be reached, for those who wait for a permit.

    Args:
        wrapped: the store; closed with this.
        clock: time.
        patience_seconds: longest outage that is waited out, once it has answered.
    """

    def __init__(
        self, wrapped: LimitStore, clock: Clock, *, patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._wrapped = wrapped
        self._clock = clock
        self._patience = min(FIRST_SECONDS, patience_seconds)
        self._patience_later = patience_seconds

    async def exchange(self, key: str, terms: Terms, ask: Ask) -> Answer:
        pause, began = PAUSES[0], self._clock.monotonic()
        while True:
            try:
                answer = await self._wrapped.exchange(key, terms, ask)
                self._patience = self._patience_later
                return answer
            except StateUnreachable as exc:
                waited = self._clock.monotonic() - began
                if not ask.wants or waited >= self._patience:
                    raise
                if pause == PAUSES[0]:
                    log.warning("no request leaves until its limit is known again: %s", exc)
            await self._clock.sleep(pause)
            pause = min(2 * pause, PAUSES[1])

    async def states(self) -> Mapping[str, State]:
        return await self._wrapped.states()

    async def aclose(self) -> None:
        await self._wrapped.aclose()
