"""Moving submissions on: each call does what can be done now, from whatever state.

Belongs here: one step from each state, and finding out what a dead process had done. Does
not belong here: filling files (``submitting``) or reading results (``collecting``).

Before each call that makes something, the store says that it may have been made; whoever
finds it so looks for it first. A batch carries its submission's name and attempt in its
metadata, a file in its name: nothing is ever sent twice, and no file is left behind.
"""

import logging
import uuid
from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection

from embedding_pipeline.batch_api import books, keys
from embedding_pipeline.batch_api.client import (
    UPSTREAM_FULL,
    BatchClient,
    Remote,
    is_gone,
    was_refused,
)
from embedding_pipeline.batch_api.collecting import COMPLETED, Collector
from embedding_pipeline.batch_api.config import BatchApiConfig
from embedding_pipeline.batch_api.decision import CANCELLED, enqueueable, overdue
from embedding_pipeline.batch_api.records import (
    METADATA_KEY,
    RUN_KEY,
    State,
    Submission,
    Terms,
    file_name,
    submission_of,
)
from embedding_pipeline.batch_api.submitting import Mark, unmarked
from embedding_pipeline.clock import Clock
from embedding_pipeline.errors import ProviderError
from embedding_pipeline.state.store import Store

log = logging.getLogger(__name__)

PAUSE_MS: Final = 600_000
"""Pause after the provider said that its queue is full, or did not take a batch."""

DOUBT_MS: Final = 900_000
"""After a call that was cut off: by then the batch it made, if it did, can be found."""

CANCELLING: Final = "cancelling"

CLOCKS_APART_S: Final = 86_400
"""The provider's clock is at most this far from ours."""


class Advancer:
    """Moves the submissions of one model on. Any number of processes may do so at once."""

    def __init__(
        self,
        store: Store,
        client: BatchClient,
        terms: Terms,
        config: BatchApiConfig,
        clock: Clock,
        *,
        mark: Mark = unmarked,
    ) -> None:
        self._store = store
        self._client = client
        self._terms = terms
        self._config = config
        self._clock = clock
        self._mark = mark
        self._holder = uuid.uuid4().hex
        self._collector = Collector(store, client, terms, clock, mark=mark)

    async def advance(
        self, only: Collection[str] | None = None, *, seconds: float | None = None
    ) -> list[Submission]:
        """Move each submission as far as it goes now; returns those with something left to do.

        A provider that does not answer costs the submission it failed on this turn only.

        Args:
            only: these submissions; None: all of the model's.
            seconds: begin with no more of them after so long.

        Raises:
            StateError: the store refused.
        """
        began = self._clock.monotonic()
        for submission in await self._left():
            late = seconds is not None and self._clock.monotonic() - began >= seconds
            if not late and (only is None or submission.id in only):
                await self._one(submission.id)
        return await self._left()

    async def _left(self) -> list[Submission]:
        queue = self._terms.queue
        return await self._store.read(lambda c: books.listing(c, finished=False, queue=queue))

    async def sweep_files(self) -> int:
        """Delete uploaded files of this store that no submission needs; returns how many.

        Raises:
            ProviderError: the provider did not answer.
        """
        gone = 0
        for file_id, name in await self._client.files():
            owner = submission_of(self._terms.identity, name)
            if owner is None or await self._needs(owner, file_id):
                continue
            await self._client.delete(file_id)
            gone += 1
        return gone

    async def cancel(self, submission_id: str) -> Submission | None:
        """Ask for a submission's end; None while another process works on it.

        What the provider has finished by then is delivered and billed, as for any batch.

        Raises:
            ProviderError: the provider did not answer.
            StateError: the store refused.
        """
        submission = await self._take(submission_id)
        if submission is None:
            return None
        try:
            if submission.state in (State.OPEN, State.UPLOADED):
                await self._give_back(submission, "cancelled before it was sent", CANCELLED)
            elif submission.state is State.SUBMITTED:
                remote = await self._client.cancel(submission.batch_id)
                await self._write(submission, status=remote.status, note="cancelling")
        finally:
            await self._let_go(submission_id)
        return await self._store.read(lambda c: books.find(c, submission_id))

    async def _one(self, submission_id: str) -> None:
        """As many steps as there are to do now."""
        submission = await self._take(submission_id)
        if submission is None:
            return
        try:
            moved = True
            while moved and submission is not None and submission.state is not State.DONE:
                moved = await self._step(submission)
                submission = await self._store.read(lambda c: books.find(c, submission_id))
        except ProviderError as exc:
            log.warning("batch submission %s: %s", submission_id, exc)
            await self._write_note(submission_id, str(exc))
        await self._let_go(submission_id)

    async def _step(self, submission: Submission) -> bool:
        """One step; whether there may be another at once."""
        steps = {
            State.OPEN: self._recover_open,
            State.UPLOADED: self._ask_for_room,
            State.CREATING: self._recover_creating,
            State.SUBMITTED: self._look,
            State.ENDED: self._collect,
            State.SETTLED: self._delete_files,
        }
        return await steps[submission.state](submission)

    async def _recover_open(self, submission: Submission) -> bool:
        """Its maker is gone: the file is there, or it never will be."""
        name = file_name(self._terms.identity, submission.id)
        files = [file_id for file_id, other in await self._client.files() if other == name]
        if not files:
            await self._give_back(submission, "it was never uploaded")
        else:
            await self._write(submission, state=State.UPLOADED, file_id=files[0])
        return True

    async def _ask_for_room(self, submission: Submission) -> bool:
        """Ask for a batch, if the provider's queue has room for it."""
        now = self._now_ms()
        if overdue(self._config, submission.opened_ms, now):
            await self._give_back(submission, "past batch_api.deadline_hours before it was sent")
            return True
        if submission.due_ms > now:
            return False

        def work(connection: Connection) -> bool:
            queue, limit = self._terms.queue, enqueueable(self._config)
            if not books.room(connection, submission, queue, limit):
                return False
            changes = {"state": State.CREATING, "attempt": submission.attempt + 1}
            books.change(connection, submission.id, self._holder, now, **changes)
            return True

        if not await self._store.write(work):
            return False
        self._mark("creating recorded")
        fresh = await self._store.read(lambda c: books.find(c, submission.id))
        assert fresh is not None
        await self._create(fresh)
        return True

    async def _recover_creating(self, submission: Submission) -> bool:
        """A batch was asked for, and nobody knows whether it was made."""
        if submission.due_ms > self._now_ms():
            return False
        since = submission.opened_ms // 1000 - CLOCKS_APART_S
        found = await self._client.find(METADATA_KEY, submission.mark, since)
        for extra in found[1:]:  # a process stood still in the middle of asking
            await self._client.cancel(extra.id)
        if found:
            await self._submitted(submission, found[0])
        else:
            await self._create(submission)
        return True

    async def _create(self, submission: Submission) -> None:
        metadata = {METADATA_KEY: submission.mark, RUN_KEY: submission.run_key[:512]}
        try:
            remote = await self._client.create(submission.file_id, metadata)
        except ProviderError as exc:
            await self._not_created(submission, exc)
            return
        self._mark("created")
        await self._submitted(submission, remote)

    async def _not_created(self, submission: Submission, exc: ProviderError) -> None:
        if is_gone(exc):
            await self._give_back(submission, "its file was deleted before it was sent")
            return
        certain, now = was_refused(exc), self._now_ms()
        state = State.UPLOADED if certain else State.CREATING
        due = now + (PAUSE_MS if certain else DOUBT_MS)
        await self._write(submission, state=state, due_at=due, note=str(exc)[:1000])

    async def _submitted(self, submission: Submission, remote: Remote) -> None:
        await self._write(
            submission, state=State.SUBMITTED, batch_id=remote.id, status=remote.status, note=""
        )
        self._mark("creation recorded")

    async def _look(self, submission: Submission) -> bool:
        """What became of the batch."""
        try:
            remote = await self._client.look(submission.batch_id)
        except ProviderError as exc:
            if not is_gone(exc):
                raise
            # It may have been worked on: what is still out is booked as unknown.
            await self._write(submission, state=State.ENDED, status=COMPLETED, note="it is gone")
            return True
        if remote.pending:
            late = overdue(self._config, submission.opened_ms, self._now_ms())
            if late and remote.status != CANCELLING:
                remote = await self._client.cancel(submission.batch_id)
            if remote.status != submission.status:
                await self._write(submission, status=remote.status)
            return False
        return await self._ended(submission, remote)

    async def _ended(self, submission: Submission, remote: Remote) -> bool:
        if remote.status != "failed":
            await self._write(
                submission,
                state=State.ENDED,
                status=remote.status,
                output_id=remote.output_id,
                error_id=remote.error_id,
            )
            self._mark("end recorded")
            return True
        if UPSTREAM_FULL in remote.codes:
            due = self._now_ms() + PAUSE_MS
            note = "the provider's queue is full; it is tried again"
            await self._write(
                submission, state=State.UPLOADED, batch_id="", status="", due_at=due, note=note
            )
            return False
        codes = ", ".join(sorted(set(remote.codes))) or "no reason given"
        await self._give_back(submission, f"the provider refused it: {codes}", remote.status)
        return True

    async def _collect(self, submission: Submission) -> bool:
        """Fetch, store and book the results; then give back what did not come."""
        found = await self._collector.collect(submission)
        terms = self._terms
        self._mark("collected")

        def work(connection: Connection) -> None:
            back, doubtful = keys.end(connection, submission, terms, found.may_be_billed)
            note = _story(back, doubtful, found.codes, gone=found.gone)
            self._change(connection, submission, state=State.SETTLED, note=note)

        await self._store.write(work)
        self._mark("settled")
        return True

    async def _give_back(self, submission: Submission, why: str, status: str = "") -> None:
        """It is not sent, or nothing of it was done: no key is billed."""

        def work(connection: Connection) -> None:
            keys.end(connection, submission, self._terms)
            self._change(connection, submission, state=State.SETTLED, note=why, status=status)

        await self._store.write(work)

    async def _delete_files(self, submission: Submission) -> bool:
        if self._config.delete_files:
            for file_id in (submission.file_id, submission.output_id, submission.error_id):
                if file_id:
                    await self._client.delete(file_id)
                    self._mark("file deleted")
        await self._write(submission, state=State.DONE)
        return False

    async def _needs(self, submission_id: str, file_id: str) -> bool:
        """Whether a file is a submission's own, or may become it."""
        found = await self._store.read(lambda c: books.find(c, submission_id))
        if found is None:
            return False
        if found.state is State.OPEN:
            return True
        if found.state is State.DONE:
            return not self._config.delete_files and found.file_id == file_id
        return found.file_id == file_id

    async def _take(self, submission_id: str) -> Submission | None:
        now = self._now_ms()
        return await self._store.write(lambda c: books.take(c, submission_id, self._holder, now))

    async def _let_go(self, submission_id: str) -> None:
        await self._store.write(lambda c: books.let_go(c, submission_id, self._holder))

    async def _write(self, submission: Submission, **values: Any) -> None:
        await self._store.write(lambda c: self._change(c, submission, **values))

    async def _write_note(self, submission_id: str, note: str) -> None:
        now = self._now_ms()
        await self._store.write(
            lambda c: books.change(c, submission_id, self._holder, now, note=note[:1000])
        )

    def _change(self, connection: Connection, submission: Submission, **values: Any) -> None:
        books.change(connection, submission.id, self._holder, self._now_ms(), **values)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _story(back: int, doubtful: int, codes: Any, *, gone: bool) -> str:
    """What happened to keys that got no vector, in words."""
    if not back:
        return "everything came back"
    parts = [f"{back} without a vector, to be sent again"]
    if doubtful:
        parts.append(f"{doubtful} of them may have been billed")
    if gone:
        parts.append("result files were deleted before they were read")
    parts.extend(f"{count} × {code}" for code, count in sorted(codes.items()))
    return "; ".join(parts)
