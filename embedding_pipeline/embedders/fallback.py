"""Providers in order: the first that can answer does.

Belongs here: which provider is asked, and which errors are another provider's turn. Does not
belong here: waiting and asking again (``retrying``, around this), or a provider's health
(``breaking`` and ``stopping``, in each provider's own chain).

Every provider here serves the same space. A request goes to the first provider that takes
requests; if that one fails, the next is asked at once, within the same attempt. A provider
that was left alone is asked again by its breaker: one request goes there as a probe, and
once it is answered, all do.

A compatible server is compared with a provider that answers while there is one (``vouching``):
in an outage it would be too late.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from embedding_pipeline.embedders.again import about_to_repeat
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.breaking import Breaking
from embedding_pipeline.embedders.retrying import RETRIED, attempt_of
from embedding_pipeline.embedders.stopping import Stopping
from embedding_pipeline.embedders.vouching import Vouching
from embedding_pipeline.errors import (
    BudgetExceeded,
    CircuitOpen,
    EmbeddingPipelineError,
    InvalidReply,
    KeyExhausted,
    NoPermit,
    ProviderError,
    ProviderFault,
    ProviderRefused,
    TransientProviderError,
)
from embedding_pipeline.records import Attempt, EmbeddingResult

ELSEWHERE: Final = (TransientProviderError, CircuitOpen, KeyExhausted, ProviderRefused, NoPermit)
"""Errors of a provider, its key or its limit. What a text or a request is refused for would
be refused by the others as well, and a 429 is a healthy provider's word to wait."""

_UNSENT: Final = (CircuitOpen, NoPermit)

log = logging.getLogger(__name__)


def is_next_ones_turn(error: ProviderError) -> bool:
    """Whether another provider may succeed where one failed like this. Pure."""
    return isinstance(error, ELSEWHERE) and not isinstance(error, InvalidReply)


@dataclass(frozen=True)
class Route:
    """One provider.

    Attributes:
        name: how the settings call it.
        breaking: its chain, outermost.
        stopping: the part of it that knows whether its key is refused.
        vouching: around its chain, for a server that has to be checked first.
    """

    name: str
    breaking: Breaking
    stopping: Stopping
    vouching: Vouching | None = None

    @property
    def asked(self) -> Embedder:
        """What requests go to."""
        return self.vouching or self.breaking

    def closed_by(self) -> ProviderError | None:
        """Why nothing would be sent to it now; None where a request may go."""
        unknown = self.vouching and self.vouching.standing_refusal()
        return unknown or self.stopping.standing_refusal() or self.breaking.would_refuse()


class Fallback(Embedder):
    """The providers of one space, in order of priority.

    Args:
        routes: at least one, the first one first.

    Raises (from ``embed``):
        ProviderError: the text's or the request's own fault; or nobody could answer: then
            what waiting may cure comes before what it does not.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = tuple(routes)
        self.space = self.routes[0].breaking.space
        self._checks: asyncio.Task[None] | None = None

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        takers, reasons = self._takers()
        if not takers:
            raise nobody(reasons)
        sent: list[Attempt] = []
        try:
            return await self._ask(takers, texts, sent, reasons)
        except (ProviderError, BudgetExceeded) as error:
            error.attempts = (*sent, *error.attempts)
            raise
        except BaseException as error:
            vars(error).update(attempts=tuple(sent))
            raise

    async def aclose(self) -> None:
        """Close every chain, also where one of them fails to."""
        if self._checks is not None:  # bounded, and of use to the next process
            await asyncio.wait({self._checks})
        results = await asyncio.gather(
            *(route.asked.aclose() for route in self.routes), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def _takers(self) -> tuple[list[Route], list[ProviderError]]:
        """Who takes requests now, in order, and why the others do not."""
        reasons = [(route, route.closed_by()) for route in self.routes]
        takers = [route for route, reason in reasons if reason is None]
        return takers, [reason for _, reason in reasons if reason is not None]

    async def _ask(
        self,
        takers: Sequence[Route],
        texts: Sequence[str],
        sent: list[Attempt],
        closed: Sequence[ProviderError],
    ) -> EmbeddingResult:
        """Ask one after the other. ``sent`` collects the calls that failed on the way."""
        failed: list[ProviderError] = []
        for route in takers:
            if failed:
                await self._move_on(failed[-1], sent)
            try:
                result = await route.asked.embed(texts)
            except ProviderError as error:
                if not is_next_ones_turn(error):
                    raise
                failed.append(error)
                continue
            if route.vouching is None:
                self._check_others()
            requests = result.requests + len(sent)
            return replace(result, requests=requests, attempts=(*sent, *result.attempts))
        raise also_refused(await self._ended(failed, sent), closed)

    def _check_others(self) -> None:
        """Once a process: now that a provider answers, compare the servers that need it."""
        unchecked = [route.vouching for route in self.routes if route.vouching is not None]
        if self._checks is None and unchecked:
            self._checks = asyncio.create_task(_check(unchecked))

    async def _move_on(self, error: ProviderError, sent: list[Attempt]) -> None:
        """Write down the call that failed; the next provider is about to be asked."""
        if not isinstance(error, _UNSENT):
            attempt = attempt_of(error)
            sent.append(attempt)
            try:
                await about_to_repeat(attempt)
            except BaseException as exc:
                vars(exc).update(between_calls=True)
                raise

    async def _ended(self, failed: Sequence[ProviderError], sent: list[Attempt]) -> ProviderError:
        """The error for whoever asks again: all have failed, the last one's call is not booked."""
        last = failed[-1]
        if isinstance(last, RETRIED) or not any(isinstance(one, RETRIED) for one in failed):
            return last
        await self._move_on(last, sent)
        words = "; ".join(str(one) for one in failed)
        return CircuitOpen(words, ProviderFault(last.fault.provider, retry_after=0.0))


async def _check(servers: Sequence[Vouching]) -> None:
    """What a check finds is kept and told by whoever needs the server."""
    for server in servers:
        try:
            await server.vouch()
        except EmbeddingPipelineError as error:
            log.warning("%s", error)


def also_refused(error: ProviderError, closed: Sequence[ProviderError]) -> ProviderError:
    """``error``, and what a person has to correct at providers that were not asked. Pure."""
    words = [str(one) for one in closed if not isinstance(one, CircuitOpen)]
    return type(error)("; ".join([str(error), *words]), error.fault) if words else error


def nobody(reasons: Sequence[ProviderError]) -> ProviderError:
    """No provider takes requests: the error that says until when, else the first one's. Pure."""
    open_ones = [reason for reason in reasons if isinstance(reason, CircuitOpen)]
    if not open_ones:
        return reasons[0]
    soonest = min(open_ones, key=lambda reason: reason.fault.retry_after or 0.0)
    words = "; ".join(str(reason) for reason in reasons)
    return CircuitOpen(words, soonest.fault)
