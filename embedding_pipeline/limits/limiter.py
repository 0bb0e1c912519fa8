"""Permits of one account and model, for one process.

Belongs here: those of this process who wait, and the talk with the shared state on their
behalf. Does not belong here: who goes first (``line``), or what a request is.

One task talks to the store, and only while somebody waits or there is news that others
need at once; it asks for the heads of all of this process's lines in one step. Quiet news
goes along with the next question.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import (
    ConfigurationError,
    EmbeddingPipelineError,
    NoPermit,
    ProviderFault,
    StateError,
)
from embedding_pipeline.limits.base import LimitStore
from embedding_pipeline.limits.callers import RANKS, Caller, Tenants
from embedding_pipeline.limits.lately import Lately
from embedding_pipeline.limits.protocol import Answer, Ask, News, Terms, Want

POLL_SECONDS: Final = (0.001, 1.0)
"""Shortest and longest pause between two questions. The longest is well below the time
after which the others no longer wait for us."""

HEADS: Final = 2
"""Waiting requests of one project and priority that are shown to the others."""

CLOSE_SECONDS: Final = 5.0
"""Longest wait for the last words to the store."""

MOST_HEADS: Final = 24
_LONG_AGO: Final = 1
"""When requests were sent for which no permit was asked: a refusal of one is the first there is,
or slows nobody down."""

MOST_NEWS: Final = 64


@dataclass(frozen=True)
class Permit:
    """Leave to send one request.

    Attributes:
        tokens: its cost.
        granted_at: when, by the store's time, ms.
        waited: seconds from asking to getting.
        flow: on whose behalf: priority and project.
    """

    tokens: int
    granted_at: int
    waited: float
    flow: tuple[int, str]


@dataclass
class Tally:
    """Permits of one project and priority in this process."""

    permits: int = 0
    tokens: int = 0
    waited_seconds: float = 0.0


@dataclass(eq=False)
class _Waiter:
    flow: tuple[int, str]
    weight: int
    tokens: int
    since: float
    permit: asyncio.Future[Permit] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Limiter:
    """Hands out permits. Used in one event loop.

    Args:
        store: the shared state; closed with the limiter.
        key: account and model.
        provider: name of the provider, for errors.
        terms: what the settings say.
        clock: time.
        tenants: weights and priorities of projects.
        max_wait_seconds: longest wait for a permit.
    """

    def __init__(
        self,
        store: LimitStore,
        key: str,
        provider: str,
        terms: Terms,
        clock: Clock,
        *,
        tenants: Tenants | None = None,
        max_wait_seconds: float = 900.0,
    ) -> None:
        self.key = key
        self.tallies: dict[tuple[int, str], Tally] = {}
        self.refusals: Counter[str] = Counter()
        self._store, self._terms, self._clock = store, terms, clock
        self._provider, self._fault = provider, ProviderFault(provider)
        self._tenants = tenants or Tenants()
        self._max_wait = max_wait_seconds
        self._client = uuid.uuid4().hex
        self._waiting: list[_Waiter] = []
        self._shown: Counter[tuple[int, str]] = Counter()
        self._out = self._returned = (0, 0)
        self._news: list[News] = []
        self._limits_told = (-2, -2)
        self._lately = Lately()
        self._known = (False, False)
        self._pressing = self._spoke = False
        self._wake = asyncio.Event()
        self._talk: asyncio.Task[None] | None = None

    @property
    def limited(self) -> bool:
        """There is a limit: by the settings, or by what the provider told any process."""
        return self._terms.tokens > 0 or self._terms.requests > 0 or any(self._known)

    async def acquire(self, tokens: int, caller: Caller) -> Permit:
        """Wait for leave to send a request of ``tokens`` (UTF-8 bytes / 4).

        Raises:
            NoPermit: it took too long, or the shared state cannot be reached.
        """
        flow = self._flow(caller)
        waiter = _Waiter(
            flow, self._tenants.weight(caller.project), max(tokens, 1), self._clock.monotonic()
        )
        self._waiting.append(waiter)
        if self._shown[flow] < HEADS:
            self._wake.set()
        self._start()
        try:
            return await waiter.permit
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise

    def settle(self, permit: Permit, news: News | None) -> None:
        """A request has ended; ``news`` is what its reply says about the limits."""
        self._out = (self._out[0] - permit.tokens, self._out[1] - 1)
        if news is None:
            return
        priority, project = permit.flow
        now = self._clock.monotonic()
        if news.kind == "ok":
            self._lately.add(now, permit.tokens)
        else:
            news = replace(news, sustained=self._lately.sustained(now))
        news = replace(news, project=project, priority=priority)
        self._news.append(replace(news, tokens=permit.tokens, granted_at=permit.granted_at))
        del self._news[:-MOST_NEWS]
        if news.kind != "ok":
            self.refusals[news.kind] += 1
        if news.kind != "ok" or news.limits != self._limits_told or not all(self._known):
            self._limits_told = news.limits
            self._press()

    def report(self, tokens: int, caller: Caller, news: News) -> None:
        """What became of a request that was sent without a permit, before a limit was known."""
        self._out = (self._out[0] + tokens, self._out[1] + 1)
        self.settle(Permit(tokens, _LONG_AGO, 0.0, self._flow(caller)), news)

    def served(self, tokens: int) -> None:
        """A request was answered that was sent without a permit."""
        self._lately.add(self._clock.monotonic(), tokens)

    def _flow(self, caller: Caller) -> tuple[int, str]:
        return RANKS[self._tenants.priority(caller)], caller.project

    def give_back(self, permit: Permit) -> None:
        """The request was never sent."""
        self._out = (self._out[0] - permit.tokens, self._out[1] - 1)
        self._returned = (self._returned[0] + permit.tokens, self._returned[1] + 1)
        self._press()

    async def aclose(self) -> None:
        """Tell the last news, and give connections back. Safe to call twice."""
        if self._talk is not None:
            if not self._waiting:  # news under way must arrive, or the next process waits for it
                await asyncio.wait({self._talk}, timeout=CLOSE_SECONDS)
            self._talk.cancel()
            await asyncio.gather(self._talk, return_exceptions=True)
        if self._spoke:
            self._waiting.clear()
            self._out, self._spoke = (0, 0), False
            with suppress(StateError, ConfigurationError):  # what is not told now expires by itself
                await self._store.exchange(self.key, self._terms, self._compose([]))
        await self._store.aclose()

    def _press(self) -> None:
        self._pressing = True
        self._wake.set()
        self._start()

    def _start(self) -> None:
        if self._talk is None or self._talk.done():
            self._talk = asyncio.create_task(self._converse())

    def _withdraw(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._press()
        elif waiter.permit.done() and not waiter.permit.cancelled():
            self.give_back(waiter.permit.result())

    async def _converse(self) -> None:
        try:
            while self._waiting or self._pressing:
                self._wake.clear()
                self._pressing = False
                self._spoke = True
                heads = self._heads()
                try:
                    answer = await self._store.exchange(self.key, self._terms, self._compose(heads))
                except StateError:
                    if heads or not self._waiting:
                        raise
                    continue  # it was only telling; who came meanwhile asks, and may wait longer
                self._heed(heads, answer)
                self._give_up_late_ones(answer)
                if self._waiting and answer.retry_after > 0:
                    await self._pause(answer.retry_after / 1000)
        except EmbeddingPipelineError as exc:  # whoever waits gets it; the next starts anew
            self._fail(exc)

    def _heads(self) -> list[_Waiter]:
        """The first of each flow, in order of arrival."""
        self._shown = Counter()
        heads: list[_Waiter] = []
        for waiter in sorted(self._waiting, key=lambda w: w.flow[0]):
            if self._shown[waiter.flow] < HEADS and len(heads) < MOST_HEADS:
                self._shown[waiter.flow] += 1
                heads.append(waiter)
        return heads

    def _compose(self, heads: Sequence[_Waiter]) -> Ask:
        now = self._clock.monotonic()
        wants = tuple(
            Want(w.flow[1], w.weight, w.flow[0], max(int((now - w.since) * 1000), 0), w.tokens)
            for w in heads
        )
        returned, self._returned = self._returned, (0, 0)
        news, self._news = tuple(self._news), []
        return Ask(self._client, wants, returned, self._out, news)

    def _heed(self, heads: Sequence[_Waiter], answer: Answer) -> None:
        self._known = answer.known
        now = self._clock.monotonic()
        for index in answer.granted:
            waiter = heads[index]
            permit = Permit(waiter.tokens, answer.now, now - waiter.since, waiter.flow)
            self._out = (self._out[0] + permit.tokens, self._out[1] + 1)
            if waiter.permit.done():  # cancelled while the question was under way
                self.give_back(permit)
                continue
            self._waiting.remove(waiter)
            waiter.permit.set_result(permit)
            self._count(waiter, permit)
        if answer.granted:
            self._shown.clear()

    def _count(self, waiter: _Waiter, permit: Permit) -> None:
        tally = self.tallies.setdefault(waiter.flow, Tally())
        tally.permits += 1
        tally.tokens += permit.tokens
        tally.waited_seconds += permit.waited

    def _give_up_late_ones(self, answer: Answer) -> None:
        now = self._clock.monotonic()
        for waiter in [w for w in self._waiting if now - w.since > self._max_wait]:
            self._waiting.remove(waiter)
            waiter.permit.set_exception(self._too_late(waiter, answer))
            self._pressing = True

    def _too_late(self, waiter: _Waiter, answer: Answer) -> NoPermit:
        ahead = ", ".join(
            f"{count} requests ({tokens:,} tokens) of project {name}"
            for name, count, tokens in answer.ahead
        )
        return NoPermit(
            f"{self._provider}: no permit for {waiter.tokens:,} tokens of project "
            f"{waiter.flow[1]} within {self._max_wait:g} s, at {answer.rates[0]:,} tokens and "
            f"{answer.rates[1]:,} requests a minute; ahead of it: {ahead or 'only its own'}; "
            "run less at once, raise the project's weight or limits.max_wait_seconds",
            self._fault,
        )

    async def _pause(self, seconds: float) -> None:
        """Until it is time to ask again, or something happened."""
        bounded = min(max(seconds, POLL_SECONDS[0]), POLL_SECONDS[1])
        tasks = {
            asyncio.create_task(self._clock.sleep(bounded)),
            asyncio.create_task(self._wake.wait()),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _fail(self, exc: EmbeddingPipelineError) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if waiter.permit.done():
                continue
            if isinstance(exc, ConfigurationError):  # no time and no other provider cures it
                waiter.permit.set_exception(exc)
                continue
            error = NoPermit(f"no permit to call {self._provider}: {exc}", self._fault)
            error.__cause__ = exc
            waiter.permit.set_exception(error)
