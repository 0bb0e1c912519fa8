"""From keys and texts to uploaded files.

Belongs here: filling files within their caps and uploading them. Does not belong here: asking
for batches and all that follows (``advancing``), or statements.

Keys are claimed first, then written to a file that has no name on this machine's disk (it
holds texts, and is gone with the process), then uploaded under a name that says whose it is.
Killed before the upload, the keys become free again; killed after it, the file is found.
"""

import asyncio
import tempfile
import uuid
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Final

from sqlalchemy import Connection

from embedding_pipeline.batch_api import books, keys
from embedding_pipeline.batch_api.client import BatchClient, was_refused
from embedding_pipeline.batch_api.files import EMPTY, FileCaps, FileSize, Wanted, request_line
from embedding_pipeline.batch_api.keys import Granted
from embedding_pipeline.batch_api.records import State, Terms, file_name
from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import ProviderError
from embedding_pipeline.ledger.budgets import Budgets
from embedding_pipeline.records import Account
from embedding_pipeline.state.store import Store

Mark = Callable[[str], None]
"""Told where the work is; tests end it there."""


def unmarked(_: str) -> None:
    """Nobody wants to know."""


@dataclass
class _Draft:
    """A file being filled."""

    id: str
    content: IO[bytes] | None = None
    size: FileSize = EMPTY
    accounts: list[Account] = field(default_factory=list)


@dataclass
class Submitted:
    """What became of the keys that were handed in.

    Attributes:
        ids: the submissions.
        inputs: texts in them.
        weight: their tokens, by the higher of both counts.
        elsewhere: keys that are stored, or that somebody fetches already.
        unpaid: keys no budget has room for.
    """

    ids: list[str] = field(default_factory=list)
    inputs: int = 0
    weight: int = 0
    elsewhere: int = 0
    unpaid: int = 0


class Submitter:
    """Makes submissions. Use one at a time; other processes may do the same."""

    def __init__(
        self,
        store: Store,
        client: BatchClient,
        terms: Terms,
        clock: Clock,
        *,
        caps: FileCaps | None = None,
        purse: Budgets | None = None,
        mark: Mark = unmarked,
    ) -> None:
        self._store = store
        self._client = client
        self._terms = terms
        self._clock = clock
        self._caps: Final = caps or FileCaps()
        self._purse = purse
        self._mark = mark
        self._holder = uuid.uuid4().hex
        self._draft: _Draft | None = None

    async def submit(self, items: AsyncIterable[Sequence[Wanted]], run_key: str) -> Submitted:
        """Upload what is not stored, nor fetched by anybody. Batches are made later.

        Args:
            items: keys with their texts; a key that comes twice is sent once.
            run_key: the work they belong to, for people.

        Raises:
            ProviderError: an upload failed. What was uploaded before goes its way; the keys
                of the rest are free again at the next advance, or when the lease has run out
                where it is not known whether the file arrived.
            StateError: the store refused.
        """
        done = Submitted()
        try:
            async for part in items:
                unique = list({item.digest: item for item in part}.values())
                await self._take_in(unique, run_key, done)
            await self._send(done)
        finally:
            self._drop()
        return done

    async def _take_in(self, items: Sequence[Wanted], run_key: str, done: Submitted) -> None:
        model = self._terms.model
        rest = [(item, request_line(model, item)) for item in items]
        while rest:
            draft = self._draft or _Draft(uuid.uuid4().hex)
            count = _fitting(draft.size, rest, self._caps)
            head, rest = rest[:count], rest[count:]
            if head:
                await self._fill(draft, head, run_key, done)
            if rest:
                await self._send(done)

    async def _fill(
        self,
        draft: _Draft,
        head: Sequence[tuple[Wanted, bytes]],
        run_key: str,
        done: Submitted,
    ) -> None:
        granted = await self._claim(draft, [item for item, _ in head], run_key)
        done.elsewhere += granted.elsewhere
        done.unpaid += granted.unpaid
        if not granted.items:
            return
        self._draft = draft
        content = draft.content = draft.content or _nameless()
        self._mark("claimed")
        mine = {item.digest for item in granted.items}
        lines = [(item, line) for item, line in head if item.digest in mine]
        for item, line in lines:
            draft.size = draft.size.plus(len(line), item.weight)
        await asyncio.to_thread(content.write, b"".join(line for _, line in lines))

    async def _claim(self, draft: _Draft, items: Sequence[Wanted], run_key: str) -> Granted:
        now, terms, accounts = self._now_ms(), self._terms, list(draft.accounts)
        fresh = draft.size.inputs == 0

        def work(connection: Connection) -> Granted:
            if fresh:
                keys.open_flight(connection, draft.id, terms, now)
            granted = keys.claim(
                connection,
                draft.id,
                items,
                accounts=accounts,
                terms=terms,
                purse=self._purse,
                now_ms=now,
            )
            if fresh and not granted.items:
                keys.forget_flight(connection, draft.id)
                return granted
            if fresh:
                books.open_submission(
                    connection,
                    draft.id,
                    terms,
                    run_key=run_key,
                    holder=self._holder,
                    now_ms=now,
                )
            books.change(connection, draft.id, self._holder, now)
            books.write_accounts(connection, draft.id, accounts)
            return granted

        granted = await self._store.write(work)
        draft.accounts = accounts
        return granted

    async def _send(self, done: Submitted) -> None:
        """Upload the present draft, if there is one."""
        draft, self._draft = self._draft, None
        if draft is None or draft.content is None:
            return
        with draft.content as content:
            size, now = draft.size, self._now_ms()
            await self._store.write(
                lambda c: books.change(
                    c, draft.id, self._holder, now, inputs=size.inputs, weight=size.weight
                )
            )
            self._mark("uploading")
            content.seek(0)
            name = file_name(self._terms.identity, draft.id)
            file_id = await self._upload(draft.id, name, content)
        self._mark("uploaded")
        await self._store.write(lambda c: self._record(c, draft.id, file_id))
        self._mark("upload recorded")
        done.ids.append(draft.id)
        done.inputs += size.inputs
        done.weight += size.weight

    async def _upload(self, submission_id: str, name: str, content: IO[bytes]) -> str:
        try:
            return await self._client.upload(name, content)
        except ProviderError as exc:
            if was_refused(exc):  # nothing is on its way: whoever comes by frees the keys
                holder = self._holder
                await self._store.write(lambda c: books.let_go(c, submission_id, holder))
            raise

    def _record(self, connection: Connection, submission_id: str, file_id: str) -> None:
        now = self._now_ms()
        books.change(
            connection, submission_id, self._holder, now, state=State.UPLOADED, file_id=file_id
        )
        books.let_go(connection, submission_id, self._holder)

    def _drop(self) -> None:
        draft, self._draft = self._draft, None
        if draft is not None and draft.content is not None:
            draft.content.close()

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _fitting(size: FileSize, lines: Sequence[tuple[Wanted, bytes]], caps: FileCaps) -> int:
    """How many of the lines still go into the file."""
    for count, (item, line) in enumerate(lines):
        size = size.plus(len(line), item.weight)
        if not size.within(caps):
            return count
    return len(lines)


def _nameless() -> IO[bytes]:
    return tempfile.TemporaryFile()
