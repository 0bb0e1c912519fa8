"""Takes a permit of the shared rate limit before each request, and tells how it ended.

Belongs here: the wrapper, and what errors and headers mean for the limit. Does not belong
here: the limit (``limits``), or trying again (``retrying``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from embedding_pipeline.embedders.base import Embedder, Wrapper
from embedding_pipeline.errors import ProviderError, RateLimited, RateRampTooSteep
from embedding_pipeline.limits.callers import current_caller
from embedding_pipeline.limits.headers import limits_and_remaining
from embedding_pipeline.limits.limiter import Limiter, Permit
from embedding_pipeline.limits.protocol import News
from embedding_pipeline.records import EmbeddingResult
from embedding_pipeline.tokens import api_estimate


class Limiting(Wrapper):
    """Sends nothing without a permit. Waiting for one is no failure.

    A server that answers and names no limit, where nobody else knows of one either, has
    none to keep (a compatible server in the next room, say): then requests go as they
    come, until a reply names a limit or a 429 says that there is one.

    Args:
        wrapped: the provider.
        limiter: permits of its account and model; closed with this.
    """

    def __init__(self, wrapped: Embedder, limiter: Limiter) -> None:
        super().__init__(wrapped)
        self.limiter = limiter
        self._unlimited = False

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        if self._unlimited:
            return await self._freely(texts)
        cost = int(api_estimate(texts).sum())
        permit = await self._permit(cost)
        try:
            result = await self.wrapped.embed(texts)
        except ProviderError as error:
            news = news_of_error(error)
            if never_arrived(error) or not (news or self.limiter.limited):
                # Where no limit is known, a failure that names none is tried again at once.
                self.limiter.give_back(permit)
            else:
                self.limiter.settle(permit, news)
            raise
        except BaseException:  # cut off: it may have been sent, and counts as sent
            self.limiter.settle(permit, None)
            raise
        self.limiter.settle(permit, news_of(result.rate_headers))
        self._unlimited = not (self.limiter.limited or result.rate_headers)
        return replace(result, limited_seconds=result.limited_seconds + permit.waited)

    async def _freely(self, texts: Sequence[str]) -> EmbeddingResult:
        try:
            result = await self.wrapped.embed(texts)
        except ProviderError as error:
            if isinstance(error, RateLimited) or error.fault.rate_headers:
                self._meet_limit(texts, news_of_error(error))
            raise
        self.limiter.served(sum(map(len, texts)) // 4)  # bytes / 4 at the least, and quick
        if result.rate_headers:
            self._meet_limit(texts, news_of(result.rate_headers))
        return result

    def _meet_limit(self, texts: Sequence[str], news: News | None) -> None:
        """There is a limit after all; those that wait to try again must know of it first."""
        self._unlimited = False
        if news is not None:
            self.limiter.report(int(api_estimate(texts).sum()), current_caller(), news)

    async def _permit(self, cost: int) -> Permit:
        caller = current_caller()
        caller.awaiting = True
        permit = await self.limiter.acquire(cost, caller)
        caller.awaiting, caller.permits = False, caller.permits + 1
        return permit

    async def aclose(self) -> None:
        try:
            await self.wrapped.aclose()
        finally:
            await self.limiter.aclose()


def never_arrived(error: ProviderError) -> bool:
    """The provider did not see the request, so that it did not count it."""
    return error.fault.status is None and not error.fault.maybe_billed


def news_of(headers: Mapping[str, str]) -> News:
    """What a success says about the limits."""
    limits, remaining = limits_and_remaining(headers)
    return News("ok", limits=limits, remaining=remaining)


def news_of_error(error: ProviderError) -> News | None:
    """What an error says about the limits; None where it says nothing."""
    fault = error.fault
    limits, remaining = limits_and_remaining(fault.rate_headers)
    if not isinstance(error, RateLimited):
        return News("ok", limits=limits, remaining=remaining) if fault.rate_headers else None
    return News(
        "ramp" if isinstance(error, RateRampTooSteep) else "refused",
        resource=fault.type if fault.type in ("tokens", "requests") else "",
        retry_after=round((fault.retry_after or 0.0) * 1000),
        limits=limits,
        remaining=remaining,
    )
