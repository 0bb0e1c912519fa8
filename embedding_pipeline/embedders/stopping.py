"""One request per key, then stop.

Belongs here: not sending what a key is known to be refused for. Does not belong here: the
health of the provider (``breaking``), or another provider's turn (fallback).

A key without quota, a wrong key and an unknown model refuse every request alike, and each
such request counts against the limits. So the first request of a key goes alone, and the
others wait for its answer; once a key is refused, nothing more is sent with it until a
hold has passed. This wrapper stands directly around the leaf, so that calls which queued
for a permit meanwhile are stopped as well.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.base import Embedder, Wrapper
from embedding_pipeline.errors import KeyExhausted, ProviderError, ProviderRefused
from embedding_pipeline.records import EmbeddingResult

HOLD_SECONDS: Final = 900.0
"""After that long, one request may find out whether the account was topped up."""

PATIENCE_SECONDS: Final = 10.0
"""Longest wait for the answer to a key's first request."""

STOPPING_STATUSES: Final = frozenset({401, 404})
"""Wrong key, unknown model. Not 403: some gateways say so of a single text."""


class Stopping(Wrapper):
    """Sends nothing with a key that is refused.

    Raises (from ``embed``):
        KeyExhausted, ProviderRefused: the key was refused, now or within the hold.
    """

    def __init__(
        self,
        wrapped: Embedder,
        clock: Clock,
        *,
        hold_seconds: float = HOLD_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        super().__init__(wrapped)
        self._clock = clock
        self._hold = hold_seconds
        self._patience = patience_seconds
        self._proven = False
        self._scout: asyncio.Future[None] | None = None
        self._refusal: ProviderError | None = None
        self._until = 0.0

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        self._check()
        await self._await_scout()
        if self._proven or self._scout is not None:
            return await self._send(texts)
        self._scout = asyncio.get_running_loop().create_future()
        try:
            return await self._send(texts)
        finally:
            self._scout.set_result(None)
            self._scout = None

    async def _await_scout(self) -> None:
        """Until nobody is finding out about the key, for as long as patience lasts."""
        try:
            async with asyncio.timeout(self._patience):
                while self._scout is not None and not self._proven:
                    await asyncio.wait({self._scout})
                    self._check()
        except TimeoutError:
            return

    async def _send(self, texts: Sequence[str]) -> EmbeddingResult:
        try:
            result = await self.wrapped.embed(texts)
        except ProviderError as error:
            if _stops(error):
                self._refusal = error
                self._until = self._clock.monotonic() + self._hold
                self._proven = False
            raise
        self._proven = self._refusal is None
        return result

    def standing_refusal(self) -> ProviderError | None:
        """What a call would be told now, without being sent; None where it would go."""
        refusal = self._refusal
        if refusal is None or self._clock.monotonic() >= self._until:
            return None
        fault = replace(refusal.fault, maybe_billed=False)
        return type(refusal)(f"{refusal} (this call was not sent)", fault)

    def _check(self) -> None:
        refusal = self.standing_refusal()
        if refusal is not None:
            raise refusal
        self._refusal = None


def _stops(error: ProviderError) -> bool:
    if isinstance(error, KeyExhausted):
        return True
    return isinstance(error, ProviderRefused) and error.fault.status in STOPPING_STATUSES
