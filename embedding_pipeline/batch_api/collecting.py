"""From result files to vectors in the cache and entries in the ledger.

Belongs here: reading the files of one batch that has ended, line by line. Does not belong
here: when (``advancing``), or the transactions (``keys``).

What is reconciled is keys, never counts: lines come in any order, twice, or not at all. A
key without a usable line is given back, for another batch or for a request of its own; it is
booked as unknown where it may stand on the bill all the same.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from embedding_pipeline.batch_api import keys
from embedding_pipeline.batch_api.client import BatchClient, is_gone
from embedding_pipeline.batch_api.records import Submission, Terms
from embedding_pipeline.batch_api.results import Delivered, Failed, parse_line
from embedding_pipeline.batch_api.submitting import Mark, unmarked
from embedding_pipeline.clock import Clock
from embedding_pipeline.embedders.replies import Expected
from embedding_pipeline.errors import ProviderError
from embedding_pipeline.planning.config import API_MAX_INPUT_TOKENS
from embedding_pipeline.records import Digest
from embedding_pipeline.state.store import Store

GROUP: Final = 256
"""Lines settled in one transaction; 2 MB of vectors."""

MOST_TOKENS: Final = 4 * API_MAX_INPUT_TOKENS
"""No honest bill of one text is higher: a token is at least a byte."""

COMPLETED: Final = "completed"


@dataclass
class Collected:
    """What came back of a batch.

    Attributes:
        tokens: booked now.
        codes: why lines have no vector, and how many.
        unbilled: keys the provider says it did not do.
        feared: keys it did, by a line that cannot be used.
        gone: a result file was deleted before it was read.
        nameless: lines that do not say whose they are.
        completed: the provider says that it went through all lines.
    """

    tokens: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    unbilled: set[Digest] = field(default_factory=set)
    feared: set[Digest] = field(default_factory=set)
    gone: bool = False
    nameless: int = 0
    completed: bool = False

    def may_be_billed(self, digest: Digest) -> bool:
        """Whether a key that got no vector may stand on the bill.

        Expired and cancelled batches are billed for the lines they deliver. A completed one is
        billed for its lines, whether they can be read or not.
        """
        if self.completed or self.gone or self.nameless:
            return digest not in self.unbilled
        return digest in self.feared


class Collector:
    """Reads results. Reading them again changes nothing more."""

    def __init__(
        self,
        store: Store,
        client: BatchClient,
        terms: Terms,
        clock: Clock,
        *,
        mark: Mark = unmarked,
    ) -> None:
        self._store = store
        self._client = client
        self._terms = terms
        self._clock = clock
        self._mark = mark
        self._expected = Expected(terms.provider, 1, terms.space.native_dimensions, (), MOST_TOKENS)

    async def collect(self, submission: Submission) -> Collected:
        """Store and book every usable line of both files.

        Raises:
            ProviderError: a download broke off; what came is booked. Collect again.
            StateError: the store refused.
        """
        found = Collected(completed=submission.status == COMPLETED)
        for file_id in filter(None, (submission.output_id, submission.error_id)):
            try:
                await self._read(submission, file_id, found)
            except ProviderError as exc:
                if not is_gone(exc):
                    raise
                found.gone = True
        return found

    async def _read(self, submission: Submission, file_id: str, found: Collected) -> None:
        group: list[Delivered] = []
        async for line in self._client.lines(file_id):
            match parse_line(line, self._expected) if line.strip() else None:
                case Delivered() as delivered:
                    group.append(delivered)
                case Failed() as failed:
                    _note(failed, found)
            if len(group) == GROUP:
                await self._settle(submission, group, found)
                group = []
        await self._settle(submission, group, found)

    async def _settle(
        self, submission: Submission, group: Sequence[Delivered], found: Collected
    ) -> None:
        if not group:
            return
        now = int(self._clock.now() * 1000)
        found.tokens += await self._store.write(
            lambda c: keys.settle(c, submission, group, self._terms, now)
        )
        self._mark("group settled")


def _note(failed: Failed, found: Collected) -> None:
    found.codes[failed.code] += 1
    if failed.digest is None:
        found.nameless += 1
    else:
        (found.feared if failed.maybe_billed else found.unbilled).add(failed.digest)
