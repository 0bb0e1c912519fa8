"""A provider and the network to it: what it billed, and everything that can go wrong.

Belongs here: the server's side with its books, and the leaf that a process calls it by. Does
not belong here: meaning of errors (``embedders.policy`` decides, as for the real API) or
replies as JSON (the fake server over real HTTP has those).

The server lives outside every process: what was sent arrives, is billed and answered, whatever
becomes of the sender.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.fake import fake_vectors
from embedding_pipeline.embedders.policy import Refusal, rate_headers, retry_after, to_error
from embedding_pipeline.errors import (
    InvalidReply,
    ProviderError,
    ProviderFault,
    TransientProviderError,
)
from embedding_pipeline.records import EmbeddingResult, Space, Usage
from embedding_pipeline_tests.fake_openai.buckets import Limits
from embedding_pipeline_tests.simulation.machine import PROCESS, Machine, Process

POISON: Final = "poison"
"""A text with this word is refused."""

TIMEOUT_SECONDS: Final = 20.0

Answer: TypeAlias = EmbeddingResult | ProviderError


@dataclass(frozen=True)
class Weather:
    """What goes wrong between a process and a provider.

    Attributes:
        slowest: seconds a call takes at most, each way.
        lost: share of the replies that are lost after the bill.
        late: share of the replies that come after the caller's deadline.
        invalid: share of the replies that fail validation, after the bill.
        failing: share of the calls answered with 500, which may have been billed.
        busy: share of the calls answered with 503 ``slow_down``.
        broke: share of the calls answered with an exhausted quota.
        outages: stretches of time, in seconds, in which nobody answers.
        names_index: a refusal says which text it is about.
    """

    slowest: float = 0.3
    lost: float = 0.0
    late: float = 0.0
    invalid: float = 0.0
    failing: float = 0.0
    busy: float = 0.0
    broke: float = 0.0
    outages: tuple[tuple[float, float], ...] = ()
    names_index: bool = False


CALM: Final = Weather()


@dataclass(frozen=True)
class Call:
    """A request as it left a process."""

    number: int
    process: Process
    space: Space
    texts: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """A character is a token."""
        return sum(map(len, self.texts))


@dataclass
class Api:
    """One provider.

    Attributes:
        billed: tokens it will ask money for.
        bills: how often each text was billed, by space.
        calls: requests that left for it.
        refused: requests it turned away for its rate limit, and when.
        on_send: looks at every request that leaves.
        on_bill: called after every bill.
    """

    name: str
    machine: Machine
    rng: random.Random
    weather: Weather = CALM
    limits: Limits | None = None
    billed: int = 0
    bills: Counter[tuple[Space, str]] = field(default_factory=Counter)
    calls: int = 0
    refused: list[float] = field(default_factory=list)
    on_send: list[Callable[[Call], None]] = field(default_factory=list)
    on_bill: list[Callable[[], None]] = field(default_factory=list)

    def send(self, call: Call) -> "asyncio.Future[Answer]":
        """What a process sends; the reply comes, or does not."""
        try:
            for look in self.on_send:
                look(call)
        except AssertionError as exc:
            self.machine.fail(exc)
        self.machine.say(self.name, "is asked by", call.process.pid, call.number, call.tokens)
        self.calls += 1
        reply: asyncio.Future[Answer] = self.machine.create_future()
        self.machine.later(self._delay(), self._arrive, call, reply)
        return reply

    def _delay(self) -> float:
        return self.rng.uniform(0.001, self.weather.slowest)

    def _arrive(self, call: Call, reply: "asyncio.Future[Answer]") -> None:
        dice, weather, now = self.rng.random(), self.weather, self.machine.monotonic()
        if any(begin <= now < end for begin, end in weather.outages):
            self.machine.note("provider away")
            error = TransientProviderError("nobody answers", ProviderFault(self.name))
            self._reply(call, reply, error)
            return
        told: dict[str, str] = {}
        if self.limits is not None:
            no, told = self.limits.admit(call.space.model, _estimate(call.texts), now)
            if no is not None:
                self.refused.append(now)
                self.machine.note("over the rate limit")
                self._reply(call, reply, self._over_limit(no.headers, no.body, told))
                return
        shares = (weather.failing, weather.busy, weather.broke)
        refusals = (
            Refusal(500, code="server_error"),
            Refusal(503, code="slow_down", retry_after=2.0),
            Refusal(429, code="insufficient_quota"),
        )
        kinds = ("server error", "overloaded", "out of quota")
        for share, refusal, kind in zip(shares, refusals, kinds, strict=True):
            if dice < share:
                self.machine.note(kind)
                self._reply(call, reply, to_error(refusal, self.name))
                return
            dice -= share
        bad = [index for index, text in enumerate(call.texts) if POISON in text]
        if bad:
            self.machine.note("text refused")
            message = f"'input[{bad[0]}]' is invalid" if weather.names_index else "no"
            self._reply(call, reply, to_error(Refusal(400, message=message), self.name))
            return
        self._deliver(call, reply, told, dice)

    def _deliver(
        self, call: Call, reply: "asyncio.Future[Answer]", told: dict[str, str], dice: float
    ) -> None:
        weather = self.weather
        self.billed += call.tokens
        self.bills.update((call.space, text) for text in call.texts)
        for look in self.on_bill:
            look()
        result = EmbeddingResult(
            fake_vectors(call.space.model, call.texts, call.space.native_dimensions),
            Usage(call.tokens),
            self.name,
            rate_headers=rate_headers(told),
        )
        fault = ProviderFault(self.name, maybe_billed=True)
        if dice < weather.lost:
            self.machine.note("reply lost")
            self._reply(call, reply, TransientProviderError("the connection broke", fault))
        elif dice < weather.lost + weather.invalid:
            self.machine.note("reply spoilt")
            self._reply(call, reply, InvalidReply("not what was asked for", fault))
        elif dice < weather.lost + weather.invalid + weather.late:
            self.machine.note("reply too late")
            self.machine.later(2 * TIMEOUT_SECONDS, _hand_in, reply, result)
        else:
            self._reply(call, reply, result)

    def _reply(self, call: Call, reply: "asyncio.Future[Answer]", answer: Answer) -> None:
        kind = type(answer).__name__
        self.machine.say(self.name, "answers", call.process.pid, call.number, kind)
        self.machine.later(self._delay(), _hand_in, reply, answer)

    def _over_limit(self, headers: "object", body: bytes, told: dict[str, str]) -> ProviderError:
        wait = retry_after(headers, self.machine.now())  # type: ignore[arg-type]
        kind = "tokens" if b"TPM" in body else "requests"
        return to_error(
            Refusal(
                429, kind, "rate_limit_exceeded", retry_after=wait, rate_headers=rate_headers(told)
            ),
            self.name,
        )


def _hand_in(reply: "asyncio.Future[Answer]", answer: Answer) -> None:
    if not reply.done():
        reply.set_result(answer)


def _estimate(texts: Sequence[str]) -> int:
    return sum(-(-len(text) // 4) for text in texts)


class Line(Embedder):
    """One process's way to a provider."""

    def __init__(self, api: Api, space: Space) -> None:
        self.space = space
        self._api = api

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        process = PROCESS.get()
        assert process is not None
        call = Call(self._api.calls, process, self.space, tuple(texts))
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                answer = await self._api.send(call)
        except TimeoutError as exc:
            fault = ProviderFault(self._api.name, maybe_billed=True)
            raise TransientProviderError("no reply in time", fault) from exc
        if isinstance(answer, ProviderError):
            raise answer
        return answer
