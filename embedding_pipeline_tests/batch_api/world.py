"""A store, an account at the fake API, and who works on them: as many processes as one likes."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import toktok
from sqlalchemy import Connection, func, select

from embedding_pipeline.batch_api import books
from embedding_pipeline.batch_api.advancing import Advancer
from embedding_pipeline.batch_api.books import LEASE_MS
from embedding_pipeline.batch_api.client import BatchClient
from embedding_pipeline.batch_api.config import BatchApiConfig
from embedding_pipeline.batch_api.files import FileCaps, Wanted
from embedding_pipeline.batch_api.records import Submission, Terms
from embedding_pipeline.batch_api.submitting import Mark, Submitted, Submitter, unmarked
from embedding_pipeline.cache import claims, database
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.records import Account, Digest, Kind, Space, digest_of
from embedding_pipeline.state import schema
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.fake_openai.replies import expected_vector
from embedding_pipeline_tests.fake_openai.server import KEY

MODEL = "text-embedding-3-small"
SPACE = Space("openai", MODEL, "", 1536)
ON = BatchApiConfig(mode="on")
PRICE = 10
"""nano-USD a token in a batch: half of what the fake API bills for a request."""

SUBMITTING = ("claimed", "uploading", "uploaded", "upload recorded")
ADVANCING = (
    "creating recorded",
    "created",
    "creation recorded",
    "end recorded",
    "group settled",
    "collected",
    "settled",
    "file deleted",
)
NEVER_UPLOADED = ("claimed", "uploading")
"""Marks at which nothing has reached the provider yet; together with the others, all there are."""


class Killed(BaseException):
    """Ends the work as a kill does: nothing of ours runs after it."""


@dataclass
class KillAt:
    """A mark at which the process ends, once."""

    point: str
    struck: bool = False

    def __call__(self, point: str) -> None:
        if point == self.point and not self.struck:
            self.struck = True
            raise Killed(point)


def wanted(text: str, account: Account) -> Wanted:
    """A text as work."""
    tokens = toktok.batch_count([text], "cl100k_base", threads=1)[0]
    return Wanted(digest_of(text), text, tokens, -(-len(text.encode()) // 4), account)


def texts_of(count: int, name: str = "text") -> list[str]:
    """Texts of different lengths."""
    return [f"{name} number {i}" + " and more" * (i % 5) for i in range(count)]


class Api(Protocol):
    """What of a fake API is needed to call it."""

    @property
    def base_url(self) -> str: ...


@dataclass
class World:
    """What several processes share, and what is seen of it."""

    store: Store
    api: Api
    config: BatchApiConfig = ON
    caps: FileCaps | None = None
    purse: Budgets | None = None
    clock: FakeClock = field(default_factory=FakeClock)

    async def submit(
        self, texts: Sequence[str], mark: Mark = unmarked, *, partition: str = "2026-11-01"
    ) -> Submitted:
        """A process that uploads texts; half of them of another project."""
        accounts = [Account("a", "", partition), Account("b", "u", partition)]

        async def parts() -> AsyncIterator[list[Wanted]]:
            for start in range(0, len(texts), 5):
                part = texts[start : start + 5]
                yield [wanted(text, accounts[i % 2]) for i, text in enumerate(part)]

        client, terms = self._client(), await self.terms()
        try:
            submitter = Submitter(
                self.store, client, terms, self.clock, caps=self.caps, purse=self.purse, mark=mark
            )
            return await submitter.submit(parts(), "2026-11-01")
        finally:
            await client.aclose()

    async def advance(self, mark: Mark = unmarked) -> list[Submission]:
        """A process that moves everything on, once."""
        client = self._client()
        try:
            return await (await self._advancer(client, mark)).advance()
        finally:
            await client.aclose()

    async def submit_and_advance(self, texts: Sequence[str], mark: Mark) -> None:
        """One process that does both."""
        await self.submit(texts, mark)
        await self.advance(mark)

    async def sweep(self) -> int:
        client = self._client()
        try:
            return await (await self._advancer(client, unmarked)).sweep_files()
        finally:
            await client.aclose()

    async def cancel(self, submission_id: str) -> Submission | None:
        client = self._client()
        try:
            return await (await self._advancer(client, unmarked)).cancel(submission_id)
        finally:
            await client.aclose()

    async def finish(self, *, turns: int = 20) -> None:
        """Processes come by until nothing is left to do; leases and pauses pass meanwhile."""
        for _ in range(turns):
            if not await self.advance():
                return
            self.clock.advance(LEASE_MS / 1000 + 1)
        raise AssertionError("there is work left")

    async def terms(self) -> Terms:
        number = await self.store.write(lambda c: database.space_id(c, SPACE))
        identity = await self.store.read(database.store_identity)
        return Terms(SPACE, number, MODEL, "openai", "queue", PRICE, "float32", identity[:8])

    async def right(self, texts: Sequence[str]) -> list[bool]:
        """For each text whether its vector is stored; a wrong one fails."""
        digests = [digest_of(text) for text in texts]
        number = (await self.terms()).space_id
        found = await self.store.read(lambda c: database.get_many(c, number, SPACE, digests))
        for text, there, vector in zip(texts, found.found, found.vectors, strict=True):
            if there:
                np.testing.assert_array_equal(vector, expected_vector(MODEL, text, 1536))
        return [bool(there) for there in found.found]

    async def booked(self, outcome: str = "settled") -> int:
        """nano-USD in the ledger."""
        c = schema.ledger.c
        query = select(func.coalesce(func.sum(c.cost_nano_usd), 0)).where(
            c.outcome == outcome, c.kind == Kind.BATCH_API.value
        )
        return int(await self.store.read(lambda x: x.scalar(query)) or 0)

    async def left_over(self, texts: Sequence[str]) -> tuple[int, int, int, int]:
        """Claims, keys of submissions, flights and reservations that nobody gave back."""
        number = (await self.terms()).space_id
        digests: list[Digest] = [digest_of(text) for text in texts]

        def work(connection: Connection) -> tuple[int, int, int, int]:
            tables = (schema.submission_keys, schema.flights, schema.reservations)
            counts = [
                int(connection.scalar(select(func.count()).select_from(table)) or 0)
                for table in tables
            ]
            return len(claims.held(connection, number, digests)), counts[0], counts[1], counts[2]

        return await self.store.read(work)

    async def all(self) -> list[Submission]:
        return await self.store.read(books.listing)

    def _client(self) -> BatchClient:
        return BatchClient("openai", KEY, self.api.base_url, self.clock)

    async def _advancer(self, client: BatchClient, mark: Mark) -> Advancer:
        terms = await self.terms()
        return Advancer(self.store, client, terms, self.config, self.clock, mark=mark)


NOTHING_LEFT = (0, 0, 0, 0)
