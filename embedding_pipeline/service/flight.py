"""What a flight is: the terms all of a service share, and what one of them holds.

Belongs here: values. Does not belong here: the transactions that change them (``flying``).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from embedding_pipeline.ledger.flights import Flight
from embedding_pipeline.ledger.shares import Share, shares_of
from embedding_pipeline.records import Account, Attempt, Digest, Kind, Space, Vectors
from embedding_pipeline.service.work import Deferral, Item, Landing, Refusal


@dataclass(frozen=True)
class Terms:
    """What every request of a service has in common.

    Attributes:
        space: the space of all vectors.
        space_id: its number in the store.
        kind: ``api`` or ``local``.
        provider: name of the provider asked first.
        price: nano-USD a token, None where unknown.
        dtype: how vectors are stored.
        run_id: the run, or "".
        owner_id: the service's lease.
        patience_seconds: longest wait for another process's request.
    """

    space: Space
    space_id: int
    kind: Kind
    provider: str
    price: int | None
    dtype: str
    run_id: str
    owner_id: str
    patience_seconds: float

    @property
    def row_bytes(self) -> int:
        """Bytes of one vector, full and as float32."""
        return 4 * self.space.native_dimensions


@dataclass
class Flying:
    """A flight under way.

    Attributes:
        flight: as it was opened.
        width: native dimensions.
        left: keys claimed and not settled yet.
        out: those of them that a request is out for at this moment.
        began_ms: when it left; its spending counts for that instant.
        known: calls of a request that has come back, until they are booked.
        booked: lost calls of the request that is out which are booked already.
        lost: lost calls of all its requests that were booked here.
        waiting: keys there is no money for just now.
        deferred: keys there is no money for in this period.
        unbooked: calls already made that no entry holds yet.
        unbooked_ms: time waited between them, and for permits.
        limited_seconds: time waited for permits.
    """

    flight: Flight
    width: int
    left: dict[Digest, Item] = field(default_factory=dict)
    out: Sequence[Item] = ()
    began_ms: int = 0
    known: Sequence[Attempt] | None = None
    booked: int = 0
    lost: int = 0
    waiting: Sequence[Item] = ()
    deferred: dict[Digest, Deferral] = field(default_factory=dict)
    unbooked: int = 0
    unbooked_ms: int = 0
    limited_seconds: float = 0.0
    digests: list[Digest] = field(default_factory=list)
    vectors: list[Vectors] = field(default_factory=list)
    refused: dict[Digest, Refusal] = field(default_factory=dict)
    billed: dict[Account, int] = field(default_factory=dict)
    requests: int = 0
    attempts: list[Attempt] = field(default_factory=list)

    def landing(self) -> Landing:
        """What has come in."""
        whole = self.vectors[0] if len(self.vectors) == 1 else self._joined()
        return Landing(
            self.digests,
            whole,
            True,
            self.refused,
            self.billed,
            self.requests,
            self.attempts,
            self.limited_seconds,
            self.deferred,
        )

    def _joined(self) -> Vectors:
        return np.concatenate([np.zeros((0, self.width), np.float32), *self.vectors])


def without(left: dict[Digest, Item], digests: Sequence[Digest]) -> dict[Digest, Item]:
    """What of a flight is left once these are decided."""
    if len(digests) == len(left):  # they are of one flight: all of it
        return {}
    gone = set(digests)
    return {digest: item for digest, item in left.items() if digest not in gone}


def shares_for(items: Iterable[Item]) -> tuple[Share, ...]:
    """Who pays for these, with the tokens of each."""
    listed = list(items)
    return shares_of([item.account for item in listed], [item.tokens for item in listed])


def payers_of(items: Sequence[Item], numbers: Mapping[Account, int]) -> list[int]:
    """The ledger entry that pays for each item; nearly always one for all of them."""
    if len(numbers) == 1:
        return [*numbers.values()] * len(items)
    return [numbers[item.account] for item in items]
