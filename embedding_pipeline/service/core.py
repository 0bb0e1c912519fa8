"""The service: one open store, one embedder, one lease; bulk runs and single texts.

Belongs here: opening, closing and the public calls. Does not belong here: reading
settings or choosing parts (``assembly``), or any step of the flow (its modules).
"""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakSet

from sqlalchemy import Connection

from embedding_pipeline.cache import database, names
from embedding_pipeline.cache.durable import DurableTier
from embedding_pipeline.cache.memory import MemoryTier
from embedding_pipeline.cache.stack import Stack
from embedding_pipeline.cache.stats import Tally
from embedding_pipeline.cache.tier import Lookup, NearTiers, no_tiers
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.base import Embedder
from embedding_pipeline.errors import ServiceClosed, TextRefused
from embedding_pipeline.ledger import deferred, quarantine
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.records import Account, Digest, Priority, Space, Vectors
from embedding_pipeline.service.aside import Aside
from embedding_pipeline.service.bulk import BulkParts, BulkRun, OnProgress, Source
from embedding_pipeline.service.config import ServiceConfig
from embedding_pipeline.service.fetching import Fetcher
from embedding_pipeline.service.finishing import finish
from embedding_pipeline.service.flight import Terms
from embedding_pipeline.service.keeping import Keeper
from embedding_pipeline.service.lanes import Lanes
from embedding_pipeline.service.lease import Lease
from embedding_pipeline.service.online import PATIENCE_SECONDS, MicroBatcher, refusal
from embedding_pipeline.service.outages import no_outage, outage_of
from embedding_pipeline.service.preparing import InputRules, Prepared, assemble
from embedding_pipeline.service.purse import purse_of
from embedding_pipeline.service.work import Deferral, Item, Refusal
from embedding_pipeline.state.store import Store
from embedding_pipeline.vectors.provenance import Recipe
from embedding_pipeline.vectors.view import view

MANY: Final = 10_000
"""Texts of one call that are waited for at a time: enough to fill every slot, and an end to
what a call of millions holds in memory."""

AT_ONCE: Final = 20_000
"""Characters that are counted and hashed on the spot; more go to a thread."""

NOT_UTF8: Final = "not_utf8"


class ServiceCore:
    """Turns texts into vectors of one space, paying once for each text.

    Use it as an async context manager, in one event loop. Concurrent calls are fine.
    """

    def __init__(
        self,
        config: ServiceConfig,
        store: Store,
        embedder: Embedder,
        clock: Clock,
        tiers: NearTiers = no_tiers,
    ) -> None:
        self._config = config
        self.store = store
        self.aside = Aside()
        self._embedder = embedder
        self._clock = clock
        self._tiers = tiers
        self._tally = Tally()
        self._keeper = Keeper(store, config.bound)
        self._lease = Lease(store, clock, self._tally, self._keeper)
        self._closing = AsyncExitStack()
        self._runs: WeakSet[BulkRun] = WeakSet()
        self._fetcher: Fetcher | None = None
        self._batcher: MicroBatcher | None = None

    @property
    def space(self) -> Space:
        """The space of every vector of this service."""
        return self._config.spec.space

    @property
    def dimensions(self) -> int:
        """Length of the vectors handed out."""
        return self._config.dimensions

    @property
    def rules(self) -> InputRules:
        """The policy for text the API would refuse."""
        return self._config.rules

    @property
    def price(self) -> int | None:
        """nano-USD a token, None where no price is known."""
        return self._config.spec.nano_usd_per_token

    @property
    def budgets(self) -> Budgets | None:
        """What bounds spending; None where nothing does, or nothing costs anything."""
        return self._config.budgets if self.price else None

    @property
    def run_id(self) -> str:
        """The run the work belongs to, or ""."""
        return self._config.run_id

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the settings that shape the vectors."""
        return self._config.fingerprint

    @property
    def recipe(self) -> Recipe:
        """What shapes the vectors besides their space."""
        return self._config.recipe

    def now_ms(self) -> int:
        """The instant, in milliseconds since the epoch."""
        return int(self._clock.now() * 1000)

    @property
    def space_id(self) -> int:
        """The space's number in the store."""
        return self._ready().terms.space_id

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(asyncio.to_thread, self.store.close)
            stack.push_async_callback(asyncio.to_thread, self.aside.close)
            number, identity = await self.store.write(self._sign_on)
            stack.push_async_callback(self._lease.end)
            durable = DurableTier(
                self.store, number, self.space, self._keeper.uses, identity=identity
            )
            cache = Stack(self._tiers(identity), durable)
            stack.push_async_callback(cache.aclose)
            await stack.enter_async_context(self._embedder)
            heart = asyncio.create_task(self._lease.keep())
            stack.push_async_callback(_stopped, heart)
            terms, lanes = self._terms(number), Lanes(self._config.max_in_flight, self._clock)
            self._fetcher = Fetcher(
                self.store,
                cache,
                self._embedder,
                terms,
                lanes,
                self._clock,
                tally=self._tally,
                purse=purse_of(self._config.budgets, self.price),
            )
            stack.push_async_callback(self._fetcher.close, PATIENCE_SECONDS)
            stack.callback(self._refuse_all)
            self._batcher = MicroBatcher(
                self._fetcher,
                MemoryTier(self._config.memory_bytes, self.space.native_dimensions),
                self._config.caps,
                self._config.max_wait_seconds,
                self._clock,
            )
            stack.push_async_callback(self._batcher.close)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish what online callers wait for, let requests that are out come in, and close.

        Bounded: whatever takes longer than ``PATIENCE_SECONDS`` is refused or booked as
        unknown.
        """
        closing, self._closing = self._closing, AsyncExitStack()
        await finish(closing.aclose())

    def _refuse_all(self) -> None:
        """From here on every call is refused, and bulk runs end."""
        self._fetcher = self._batcher = None
        for run in list(self._runs):
            run.stop(ServiceClosed("the embedding service closed before the run had ended"))

    def bulk(
        self,
        batches: Source,
        *,
        total: int | None = None,
        on_progress: OnProgress | None = None,
        priority: Priority = Priority.NORMAL,
        may_defer: bool = False,
        hold: Deferral | None = None,
    ) -> BulkRun:
        """Embed a stream of batches with bounded memory; iterate ``.batches()`` of it.

        With ``may_defer``, where the settings say so, an outage of the provider does not end
        the run: what it left undone is handed out as deferred. With ``hold``, nothing is
        sent at all, and whatever is missing is deferred for that reason.
        """
        parts = BulkParts(
            self._ready(),
            self.store,
            self._config.rules,
            self._config.caps,
            priority,
            self._clock,
            self.aside,
            self._config.window_bytes,
            outage_of=outage_of if may_defer and self._config.defers_outages else no_outage,
            hold=hold,
        )
        run = BulkRun(parts, batches, total=total, on_progress=on_progress)
        self._runs.add(run)
        return run

    async def generate_embedding(
        self,
        text: str,
        *,
        project: str = "default",
        user: str = "",
        priority: Priority | str = Priority.NORMAL,
        cache_key: str | None = None,
    ) -> Vectors:
        """The vector of one text, float32, shape ``(dimensions,)``, unit norm.

        Callers arriving within ``requests.max_wait_ms`` share one request.

        Args:
            text: the exact text.
            project: the tenant that pays.
            user: a person or service within the project.
            priority: ``urgent``, ``normal`` or ``bulk``.
            cache_key: a name under which ``get_embedding`` finds the vector without the
                text. The same name with another text is that text's vector.

        Raises:
            TextRefused: blank, over the cap under the policy ``reject``, or refused.
            BudgetExceeded: a budget has no room for it; the message says until when.
            ProviderError: the provider did not deliver.
            ServiceClosed: the service is closed.
        """
        self._ready()
        prepared = await self._prepare([text], Account(project, user))
        if cache_key is not None and prepared.derived:
            raise TextRefused(
                "derived", "cache_key names vectors made from exactly their text; shorten the text"
            )
        vector: Vectors = (await self._rows(prepared, Priority(priority)))[0]
        if cache_key is not None:
            number, digest = self.space_id, prepared.items[0].digest
            await self.store.write(lambda c: names.give(c, number, cache_key, digest))
        return vector

    async def get_embedding(self, name: str) -> Vectors | None:
        """The vector last given this ``cache_key``, shape ``(dimensions,)``; or None."""
        number = self.space_id
        digest = await self.store.read(lambda c: names.find(c, number, name))
        if digest is None:
            return None
        found = await self._ready().lookup([digest])
        if not found.found[0]:
            return None
        vector: Vectors = view(found.vectors, self.dimensions)[0]
        return vector

    async def embed_many(
        self,
        texts: Sequence[str],
        *,
        project: str = "default",
        user: str = "",
        priority: Priority | str = Priority.NORMAL,
    ) -> Vectors:
        """The vectors of ``texts`` in order, float32, shape ``(len(texts), dimensions)``.

        Raises:
            TextRefused: one of the texts cannot be embedded; the others are stored, so
                that a call without it pays nothing again.
            BudgetExceeded: no room for all of them; those paid for are stored.
            ProviderError: the provider did not deliver.
            ServiceClosed: the service is closed.
        """
        self._ready()
        prepared = await self._prepare(texts, Account(project, user))
        return await self._rows(prepared, Priority(priority))

    async def stored(self, digests: Sequence[Digest]) -> Lookup:
        """What the cache holds of these keys, as full vectors."""
        return await self._ready().lookup(digests)

    async def quarantined(self, partition: str) -> frozenset[str]:
        """Chunk ids of a partition that are in quarantine in this space."""
        number = self.space_id
        return await self.store.read(lambda c: quarantine.chunk_ids(c, number, partition))

    async def deferred(self, partition: str) -> frozenset[str]:
        """Chunk ids of a partition that are left for later in this space."""
        number = self.space_id
        return await self.store.read(lambda c: deferred.chunk_ids(c, number, partition))

    async def _rows(self, prepared: Prepared, lane: Priority) -> Vectors:
        for row, why in prepared.refused.items():
            raise refusal(why, row)
        parts: list[Vectors] = []
        refused: tuple[int, TextRefused] | None = None
        for start in range(0, len(prepared.items), MANY):
            # Every text is waited for, so that one that is refused leaves none half done.
            for answer in await self._answers(prepared.items[start : start + MANY], lane):
                if isinstance(answer, TextRefused):
                    refused = refused or (len(parts), answer)
                elif isinstance(answer, BaseException):
                    raise answer
                parts.append(answer)
        if refused is not None:
            position, error = refused
            raise refusal(Refusal(error.reason), prepared.rows[position]) from error
        return view(assemble(prepared, parts, self.space.native_dimensions), self.dimensions)

    async def _answers(self, items: Sequence[Item], lane: Priority) -> list[Any]:
        batcher = self._batcher
        if batcher is None:
            raise ServiceClosed("the embedding service is closed; open a new one")
        calls = (batcher.vector(item, lane) for item in items)
        return await asyncio.gather(*calls, return_exceptions=True)

    async def _prepare(self, texts: Sequence[str], account: Account) -> Prepared:
        rules = self._config.rules

        def work() -> Prepared:
            for row, text in enumerate(texts):
                _require_utf8(row, text)
            return rules.prepare(texts, rules.counter.count(texts), [account] * len(texts))

        if sum(map(len, texts)) <= AT_ONCE:
            return work()
        return await asyncio.to_thread(work)

    def _ready(self) -> Fetcher:
        if self._fetcher is None:
            raise ServiceClosed("the embedding service is not open; use it in 'async with'")
        return self._fetcher

    def _terms(self, number: int) -> Terms:
        config = self._config
        return Terms(
            config.spec.space,
            number,
            config.kind,
            config.provider,
            config.spec.nano_usd_per_token,
            config.dtype,
            config.run_id,
            self._lease.owner_id,
            config.patience_seconds,
        )

    def _sign_on(self, connection: Connection) -> tuple[int, str]:
        """Take the lease; the number of the space, and the store's identity."""
        number = database.space_id(connection, self.space)
        self._lease.take(connection, number)
        return number, database.store_identity(connection)


async def _stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _require_utf8(row: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise TextRefused(
            NOT_UTF8, f"text {row} cannot be embedded: it holds half a character (a surrogate)"
        ) from exc
