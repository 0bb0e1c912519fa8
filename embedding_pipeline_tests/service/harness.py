"""What the service's tests are made of: a small model, a clock moved by hand, and the books.

The model takes texts of up to 64 characters, a token each, at 20 nano-USD; its vectors are
``fake_vector`` in 8 dimensions, so that the right vector of any text is known.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, func, select

from embedding_pipeline.cache import database
from embedding_pipeline.cache.durable import DurableTier
from embedding_pipeline.cache.stack import Stack
from embedding_pipeline.cache.stats import Tally
from embedding_pipeline.catalog import ModelSpec
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.embedders.fake import fake_vector, fake_vectors
from embedding_pipeline.errors import InputRefused, ProviderError, ProviderFault
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.planning.inputs import Policy
from embedding_pipeline.planning.requests import RequestCaps
from embedding_pipeline.records import Account, EmbeddingResult, Kind, Space, Usage, digest_of
from embedding_pipeline.service.config import ServiceConfig
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.service.fetching import Fetcher
from embedding_pipeline.service.flight import Terms
from embedding_pipeline.service.lanes import Lanes
from embedding_pipeline.service.preparing import InputRules
from embedding_pipeline.service.purse import purse_of
from embedding_pipeline.service.work import Item, Landing
from embedding_pipeline.state import owners, schema
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.stores import url_in

WIDTH = 8
MAX_TOKENS = 64
PRICE = 20
SPACE = Space("fake", "hash", "", WIDTH)
SPEC = ModelSpec("fake/hash", SPACE, MAX_TOKENS, True, PRICE, None, date(2026, 1, 1), "https://x")
ACCOUNT = Account("project", "", "2026-01-01")


class HandClock:
    """Time that moves when a test says so. Sleeps up to ``through`` seconds pass at once."""

    def __init__(self, through: float = 0.0) -> None:
        self.elapsed = 0.0
        self.through = through
        self._asleep = asyncio.Event()
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return 1_790_000_000.0 + self.elapsed

    def monotonic(self) -> float:
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= self.through:
            self.elapsed += seconds
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.elapsed + seconds, woken))
        self._asleep.set()
        await woken

    async def slept(self) -> None:
        """Until somebody sleeps."""
        await self._asleep.wait()

    def advance(self, seconds: float) -> None:
        self.elapsed += seconds
        for deadline, woken in self._sleepers:
            if deadline <= self.elapsed and not woken.done():
                woken.set_result(None)
        self._sleepers = [entry for entry in self._sleepers if not entry[1].done()]


class Characters:
    """A token counter for which a character is a token."""

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        return np.array([len(text) for text in texts], np.int32)

    def truncate(self, text: str, max_tokens: int) -> str:
        return text[:max_tokens]


class Provider(Embedder):
    """Embeds, keeps books of what it billed, and fails as told.

    Attributes:
        calls: the texts of every call, in order.
        billed: how often each text was billed.
        script: what the n-th call (from 0) raises.
        poison: which texts it refuses.
        names_index: a refusal names the (first) bad input.
        alter: what becomes of an answer on its way.
        gate: calls wait for it.
    """

    def __init__(self) -> None:
        self.space = SPACE
        self.calls: list[tuple[str, ...]] = []
        self.billed: Counter[str] = Counter()
        self.script: dict[int, BaseException] = {}
        self.poison: Callable[[str], bool] = lambda _: False
        self.refuse: Callable[[ProviderFault], ProviderError] = lambda fault: InputRefused(
            "refused", fault
        )
        self.names_index = False
        self.alter: Callable[[EmbeddingResult], EmbeddingResult] = lambda result: result
        self.gate: asyncio.Event | None = None
        self.closed = 0
        self._arrivals = asyncio.Condition()

    @property
    def tokens(self) -> int:
        """All tokens billed."""
        return sum(len(text) * times for text, times in self.billed.items())

    async def embed(self, texts: Sequence[str]) -> EmbeddingResult:
        number = len(self.calls)
        self.calls.append(tuple(texts))
        async with self._arrivals:
            self._arrivals.notify_all()
        if self.gate is not None:
            await self.gate.wait()
        if number in self.script:
            raise self.script[number]
        bad = [index for index, text in enumerate(texts) if self.poison(text)]
        if bad:
            raise self.refuse(fault(index=bad[0] if self.names_index else None))
        self.billed.update(texts)
        vectors = fake_vectors("hash", texts, WIDTH)
        return self.alter(EmbeddingResult(vectors, Usage(sum(map(len, texts))), "fake"))

    async def reached(self, calls: int = 1) -> None:
        """Until so many calls have arrived."""
        async with self._arrivals:
            await self._arrivals.wait_for(lambda: len(self.calls) >= calls)

    async def aclose(self) -> None:
        self.closed += 1


def fault(*, billed: bool = False, index: int | None = None) -> ProviderFault:
    """What a provider said."""
    return ProviderFault("fake", status=400, input_index=index, maybe_billed=billed)


def item(text: str, account: Account = ACCOUNT) -> Item:
    """A text as the fetcher takes it."""
    return Item(digest_of(text), text, len(text), -(-len(text.encode()) // 4), account)


def items(*texts: str) -> list[Item]:
    """Texts as the fetcher takes them."""
    return [item(text) for text in texts]


def right(landing: Landing, texts: Sequence[str]) -> bool:
    """Every vector of a landing is the one of its key's text."""
    by_digest = {digest_of(text): text for text in texts}
    return all(
        (vector == fake_vector("hash", by_digest[digest], WIDTH)).all()
        for digest, vector in zip(landing.digests, landing.vectors, strict=True)
    )


def open_fetcher(
    store: Store,
    provider: Embedder,
    clock: Clock,
    *,
    slots: int = 4,
    patience: float = 100.0,
    budgets: Budgets | None = None,
) -> Fetcher:
    """A fetcher with a lease of its own. Blocking: opens the books in this thread."""
    owner = owners.this_process()

    def work(connection: Connection) -> int:
        owners.register(connection, owner, int(clock.now() * 1000))
        return database.space_id(connection, SPACE)

    number = store._transact(work, True)
    terms = Terms(SPACE, number, Kind.API, "fake", PRICE, "float32", "run", owner.id, patience)
    cache, lanes = Stack((), DurableTier(store, number, SPACE)), Lanes(slots, clock)
    purse = purse_of(budgets, PRICE)
    return Fetcher(store, cache, provider, terms, lanes, clock, tally=Tally(), purse=purse)


def rules(policy: Policy = "reject") -> InputRules:
    """Texts over 64 characters meet this policy."""
    return InputRules(policy, MAX_TOKENS, Characters())


def open_service(
    folder: Path, provider: Embedder, clock: Clock, *, policy: Policy = "reject", **changes: Any
) -> ServiceCore:
    """A service on the store in ``folder``; use it in ``async with``."""
    values: dict[str, Any] = {
        "spec": SPEC,
        "kind": Kind.API,
        "provider": "fake",
        "dimensions": WIDTH,
        "caps": RequestCaps(max_inputs=8, max_input_tokens=MAX_TOKENS, target_tokens=256),
        "rules": rules(policy),
        "max_in_flight": 4,
        **changes,
    }
    return ServiceCore(ServiceConfig(**values), Store(url_in(folder), clock), provider, clock)


@dataclass(frozen=True)
class Books:
    """What the store says in the end.

    Attributes:
        settled, unknown: tokens by outcome.
        requests: calls booked.
        flights, claims, owners, vectors: rows of these tables.
    """

    settled: int
    unknown: int
    requests: int
    flights: int
    claims: int
    owners: int
    vectors: int


def read_books(connection: Connection) -> Books:
    """Read the books."""
    c = schema.ledger.c

    def tokens(outcome: str) -> int:
        found = connection.scalar(select(func.sum(c.tokens)).where(c.outcome == outcome))
        return int(found or 0)

    def rows(table: Any) -> int:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)

    return Books(
        tokens("settled"),
        tokens("unknown"),
        int(connection.scalar(select(func.sum(c.requests))) or 0),
        rows(schema.flights),
        rows(schema.claims),
        rows(schema.owners),
        rows(schema.vectors),
    )


async def turns(count: int = 20) -> None:
    """Let every task that can run do so."""
    for _ in range(count):
        await asyncio.sleep(0)
