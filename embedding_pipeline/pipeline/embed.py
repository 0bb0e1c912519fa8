"""``embeddings``: every representative of some days gets its vector, each day one file.

Belongs here: reading ``deduped_chunks``, handing them to the service, writing what comes
back. Does not belong here: how a vector is got (``service``).

Days are embedded in one stream, so that a request may hold texts of two days; each
day's file replaces the old one when its last vector is there, and not before.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
from sqlalchemy import Connection

from embedding_pipeline.errors import ConservationError, EmbeddingPipelineError
from embedding_pipeline.ledger import deferred, quarantine
from embedding_pipeline.ledger.deferred import Deferred, new_pass
from embedding_pipeline.ledger.quarantine import Held
from embedding_pipeline.pipeline.closing import Closing, Ended
from embedding_pipeline.pipeline.portions import Portions
from embedding_pipeline.pipeline.reports import EmbedReport
from embedding_pipeline.pipeline.stand_ins import StandInDay, StandIns
from embedding_pipeline.records import DERIVED_CHUNKS, Account, Digest, Priority
from embedding_pipeline.service.aside import Aside
from embedding_pipeline.service.bulk import BulkRun
from embedding_pipeline.service.core import ServiceCore
from embedding_pipeline.service.finishing import finish
from embedding_pipeline.service.work import (
    Deferral,
    FilledBatch,
    Progress,
    Refusal,
    Row,
    Tally,
    WorkBatch,
)
from embedding_pipeline.tokens import api_estimate
from embedding_pipeline.vectors.columns import embeddings_batch
from embedding_pipeline.vectors.datasets import Datasets, VectorsWriter
from embedding_pipeline.vectors.view import view

COLUMNS = ("chunk_id", "document_id", "text", "content_hash", "token_count", "project", "user")


async def build_embeddings(
    service: ServiceCore,
    datasets: Datasets,
    partitions: Sequence[str],
    *,
    on_partition: Callable[[EmbedReport], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    priority: Priority = Priority.NORMAL,
    stand_ins: StandIns | None = None,
    hold: Deferral | None = None,
) -> tuple[EmbedReport, ...]:
    """Make ``embeddings`` for the days ``partitions``; requests fill across them.

    Args:
        service: an open service.
        datasets: where the chunks are and the vectors go.
        partitions: days, in the order they are worked on.
        on_partition: told of each day as soon as its file is whole.
        on_progress: told how far the whole run is, often.
        priority: the lane of this run's requests.
        stand_ins: what stands in for vectors that an outage delays; None leaves those be.
        hold: why nothing is to be sent: what is missing is left for later.

    Returns:
        One report a day, in order. Chunks that no budget has room for, that are in a batch of
        the Batch API, or that an outage left undone under ``on_outage: defer``, are left out
        of the day's file, counted in the report, and named in the store until a run embeds
        them.

    Raises:
        DataError: ``deduped_chunks`` of a day is missing or damaged.
        ProviderError: the provider stopped delivering. Days that were whole are written,
            and everything paid for is in the cache: a rerun does not pay again.
    """
    total = await service.aside.run(
        lambda: sum(datasets.deduped_chunks(day).rows() for day in partitions)
    )
    source = _read(service.aside, datasets, partitions)
    run = service.bulk(
        source, total=total, on_progress=on_progress, priority=priority, may_defer=True, hold=hold
    )
    closing = Closing(partial(_settle, service), on_partition)
    day: _Day | None = None
    try:
        async with aclosing(run.batches()) as batches:
            async for batch in batches:
                day = day or _Day(service, datasets, batch.work.partition, priority, stand_ins)
                await day.add(batch)
                if len(batch.work):
                    continue
                # the empty batch that marks the end of a day
                tally = run.tallies[day.partition]
                report = day.counted(tally, run.progress().seconds)
                await closing.add(day.finish(report, closing.threads))
                day = None
        return await closing.reports()
    except BaseException as exc:
        if day is not None:
            day.abandon(exc)
        if isinstance(exc, Exception):
            await _keep_refusals(service, run)
        raise
    finally:
        await closing.end()


async def _settle(service: ServiceCore, ended: Sequence[Ended]) -> None:
    """Forget what the store holds of days that are whole now and does not hold any more."""
    number = service.space_id
    keep = {day.report.partition: day.refused for day in ended}
    passes = {day.report.partition: day.pass_id for day in ended}

    def work(connection: Connection) -> None:
        quarantine.reset_partitions(connection, number, keep)
        deferred.close_passes(connection, number, passes)

    await service.store.write(work)


async def _keep_refusals(service: ServiceCore, run: BulkRun) -> None:
    """What a run that failed has found out: the next one need not search for it again."""
    with suppress(EmbeddingPipelineError):  # what ended the run is the news
        for work, refused in run.refused_so_far():
            await _hold(service, work, refused)


async def _read(
    aside: Aside, datasets: Datasets, partitions: Sequence[str]
) -> AsyncIterator[Sequence[WorkBatch]]:
    """The chunks of all days; an empty batch marks the end of each."""
    some = Portions(_works(datasets, partitions))
    while portion := await aside.run(some.next):
        yield portion


def _works(datasets: Datasets, partitions: Sequence[str]) -> Iterator[WorkBatch]:
    for day in partitions:
        for batch in datasets.deduped_chunks(day).iter_batches(COLUMNS):
            yield work_of(day, batch)
        yield WorkBatch(day, (), (), np.zeros(0, np.int32), ())


def work_of(day: str, batch: pa.RecordBatch) -> WorkBatch:
    """A batch of ``COLUMNS`` of a day's representatives as work, each paid by its project."""
    projects, users = batch.column("project").to_pylist(), batch.column("user").to_pylist()
    accounts: dict[tuple[str, str], Account] = {}
    for project, user in zip(projects, users, strict=True):
        key = (project, user or "")
        if key not in accounts:
            accounts[key] = Account(*key, partition=day)
    return WorkBatch(
        day,
        batch.column("chunk_id").to_pylist(),
        batch.column("text").to_pylist(),
        batch.column("token_count").to_numpy(),
        [accounts[project, user or ""] for project, user in zip(projects, users, strict=True)],
        payload=batch,
    )


@dataclass
class _Day:
    """The file of one day while it is being written."""

    service: ServiceCore
    datasets: Datasets
    partition: str
    priority: Priority
    stand_ins: StandIns | None = None
    _instead: StandInDay | None = None
    _pass_id: str = field(default_factory=new_pass)
    _stack: ExitStack = field(default_factory=ExitStack)
    _writer: VectorsWriter | None = None
    _refused: set[str] = field(default_factory=set)
    _derived: dict[str, tuple[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stand_ins is not None:
            service = self.service
            self._instead = self.stand_ins.of_day(self.partition, service.aside, service.run_id)

    async def add(self, batch: FilledBatch) -> None:
        if not len(batch.work):
            if self._writer is None:
                await finish(self.service.aside.run(self._open))
            return
        self._refused |= await _hold(self.service, batch.work, batch.refused)
        await self._put_off(batch)
        for row, how in batch.derived.items():
            if row not in batch.refused and row not in batch.deferred:
                self._derived[batch.work.chunk_ids[row]] = how
        if self._instead is not None:
            await self._instead.add(batch)
        # to its end even when cancelled: a file is not closed under the thread that writes it
        await finish(self.service.aside.run(self._write, batch))

    def counted(self, tally: Tally, seconds: float) -> EmbedReport:
        """What the day's file says of itself, and the report. Raises ConservationError."""
        report = self._report(tally, seconds)
        assert self._writer is not None
        self._writer.counts.update(
            chunks=report.chunks,
            embedded=report.embedded,
            cached=report.cached,
            quarantined=report.quarantined,
            deferred=report.deferred,
        )
        self._balance(report, self._writer.rows)
        return report

    async def finish(self, report: EmbedReport, threads: Executor) -> Ended:
        """Put the file in place, all or nothing of it; the books come after (``_settle``)."""
        try:
            if self._instead is not None:
                await self._instead.publish()
            await asyncio.get_running_loop().run_in_executor(threads, self._close)
        except BaseException as exc:
            self.abandon(exc)
            raise
        if self._instead is not None:
            await self._instead.settle()
        return Ended(report, self._pass_id, frozenset(self._refused))

    def abandon(self, exc: BaseException) -> None:
        """Leave the old file as it is."""
        if self._instead is not None:
            self._instead.abandon(exc)
        self._stack.__exit__(type(exc), exc, exc.__traceback__)

    def _open(self) -> VectorsWriter:
        file = self.datasets.embeddings(self.service.space, self.partition, self.service.dimensions)
        self._writer = self._stack.enter_context(
            file.vectors_writer(
                run_id=self.service.run_id,
                fingerprint=self.service.fingerprint,
                recipe=self.service.recipe,
            )
        )
        return self._writer

    def _write(self, batch: FilledBatch) -> None:
        writer = self._writer or self._open()
        chunks = batch.work.payload
        assert isinstance(chunks, pa.RecordBatch)
        _verify(chunks, batch)
        pieces = batch.pieces
        if batch.refused or batch.deferred:
            keep = batch.status < Row.REFUSED
            chunks, pieces = chunks.filter(pa.array(keep)), (batch.vectors[keep],)
        start = 0
        for piece in pieces:
            if len(piece):
                vectors = view(piece, self.service.dimensions)
                writer.write(embeddings_batch(chunks.slice(start, len(piece)), vectors))
                start += len(piece)

    async def _put_off(self, batch: FilledBatch) -> None:
        """Write down which chunks of this batch are left for later, and why."""
        chunks = [
            Deferred(
                batch.work.accounts[row],
                batch.work.chunk_ids[row],
                _digest(batch.work, row),
                self.priority,
                why.reason,
                max(int(batch.work.tokens[row]), api_estimate([batch.work.texts[row]]).item()),
            )
            for row, why in batch.deferred.items()
        ]
        if chunks:
            number, now = self.service.space_id, self.service.now_ms()
            await self.service.store.write(
                lambda c: deferred.put_off(c, number, chunks, self._pass_id, now)
            )

    def _close(self) -> None:
        self._stack.close()
        self._write_derived()

    def _write_derived(self) -> None:
        file = self.datasets.derived_chunks(self.service.space, self.partition)
        if not self._derived:
            file.remove()
            return
        with file.writer() as writer:
            writer.write(_derived_batch(self._derived))

    def _balance(self, report: EmbedReport, written: int) -> None:
        explained = report.embedded + report.cached + report.quarantined + report.deferred
        if report.chunks != explained or written != report.embedded + report.cached:
            raise ConservationError(
                f"embeddings {self.partition}: {report.chunks} chunks, {explained} explained, "
                f"{written} vectors written; nothing was replaced. Please report this"
            )

    def _report(self, tally: Tally, seconds: float) -> EmbedReport:
        service, price = self.service, self.service.price or 0
        file = self.datasets.embeddings(service.space, self.partition, service.dimensions)
        return EmbedReport(
            partition=self.partition,
            space=str(service.space),
            dimensions=service.dimensions,
            chunks=tally.chunks,
            embedded=tally.embedded,
            cached=tally.cached,
            quarantined=tally.quarantined,
            deferred=tally.deferred,
            requests=tally.requests,
            input_tokens=tally.input_tokens,
            cost_nano_usd=tally.input_tokens * price,
            saved_nano_usd=tally.saved_tokens * price,
            retries=tally.retries,
            wait_seconds=tally.wait_seconds,
            fingerprint=service.fingerprint,
            path=file.name,
            seconds=seconds,
            stand_ins=self._instead.count if self._instead is not None else 0,
        )


async def _hold(service: ServiceCore, work: WorkBatch, refused: Mapping[int, Refusal]) -> set[str]:
    """Put refused chunks of a batch in quarantine, by id and reason; returns their ids."""
    held = [
        Held(
            str(service.space),
            work.accounts[row],
            work.chunk_ids[row],
            _digest(work, row),
            refusal.reason,
            refusal.code,
            attempts=int(refusal.attempted),
        )
        for row, refusal in refused.items()
    ]
    if held:
        number, now = service.space_id, service.now_ms()
        await service.store.write(lambda c: quarantine.hold(c, number, held, now))
    return {chunk.chunk_id for chunk in held}


def _digest(work: WorkBatch, row: int) -> Digest:
    chunks = work.payload
    assert isinstance(chunks, pa.RecordBatch)
    return Digest(bytes.fromhex(chunks.column("content_hash")[row].as_py()))


def _verify(chunks: pa.RecordBatch, batch: FilledBatch) -> None:
    """The vectors are of these very rows, and none is missing without a reason."""
    rows = sum(map(len, batch.pieces))
    if chunks.num_rows != rows or Row.OPEN in batch.status:
        raise ConservationError("a batch left the service with rows undecided; please report this")


def _derived_batch(derived: Mapping[str, tuple[str, int]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [
            pa.array(list(derived), pa.string()),
            pa.array([method for method, _ in derived.values()], pa.string()),
            pa.array([parts for _, parts in derived.values()], pa.int32()),
        ],
        schema=DERIVED_CHUNKS,
    )
