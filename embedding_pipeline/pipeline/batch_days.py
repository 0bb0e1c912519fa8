"""Which days can be made now that their batches are in.

Belongs here: the decision. Pure. Does not belong here: asking the store, or launching.

A day's chunks are deferred because a batch holds their texts. Once none does any more, the
day is run again: what the batch brought is in the cache, and what it did not is sent then.
"""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from embedding_pipeline.ledger.deferred import BATCH_API, Backlog


@dataclass(frozen=True)
class ReadyDays:
    """Days to be made.

    Attributes:
        days: in order.
        key: names just these deferrals: the same ones are not launched twice.
        waiting: days whose batches are out still, or that a run is under way for.
    """

    days: tuple[str, ...] = ()
    key: str = ""
    waiting: int = 0

    def __bool__(self) -> bool:
        return bool(self.days)


def ready_days(
    deferred: Iterable[Backlog], in_batches: Collection[str], busy: Collection[str] = ()
) -> ReadyDays:
    """Decide on every day with chunks that a batch held.

    Args:
        deferred: what is left for later, in the spaces that a run would write.
        in_batches: days of which a batch holds something still.
        busy: days that a run is under way or queued for.
    """
    passes: dict[str, set[str]] = {}
    for one in deferred:
        if one.reason == BATCH_API:
            passes.setdefault(one.account.partition, set()).add(one.pass_id)
    days = sorted(day for day in passes if day not in in_batches and day not in busy)
    named = ";".join(f"{day}={','.join(sorted(passes[day]))}" for day in days)
    key = hashlib.sha256(named.encode()).hexdigest()[:12]
    return ReadyDays(tuple(days), key if days else "", len(passes) - len(days))
