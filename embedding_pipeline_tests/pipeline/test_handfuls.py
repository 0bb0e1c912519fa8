"""Small days are worked on together: which, how they end, and how they are read."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.errors import DataError, StateError
from embedding_pipeline.pipeline import closing
from embedding_pipeline.pipeline.closing import Closing, Ended
from embedding_pipeline.pipeline.handfuls import MOST_CHUNKS, MOST_DAYS, cut
from embedding_pipeline.pipeline.portions import MOST, Portions
from embedding_pipeline.pipeline.reports import EmbedReport
from embedding_pipeline.records import Account
from embedding_pipeline.service.work import WorkBatch
from embedding_pipeline.vectors.partition import BATCH_ROWS

SIZES = st.lists(st.integers(0, MOST_CHUNKS + 9), max_size=90)


@given(SIZES)
def test_handfuls_keep_the_order_and_their_bounds_and_are_not_smaller_than_they_must(
    sizes: list[int],
) -> None:
    of = {str(n): size for n, size in enumerate(sizes)}
    made = list(cut(of.items()))
    assert list(chain(*made)) == list(of)
    held = [sum(of[day] for day in days) for days in made]
    for days, chunks in zip(made, held, strict=True):
        assert len(days) == 1 or (len(days) <= MOST_DAYS and chunks <= MOST_CHUNKS)
    for (days, chunks), (after, _) in pairwise(zip(made, held, strict=True)):
        assert len(days) == MOST_DAYS or chunks + of[after[0]] > MOST_CHUNKS


def batch(rows: int) -> WorkBatch:
    account = Account("p", "", partition="2026-01-01")
    texts = ["t"] * rows
    return WorkBatch("2026-01-01", texts, texts, np.zeros(rows, np.int32), [account] * rows)


@given(st.lists(st.integers(0, BATCH_ROWS), max_size=3 * MOST))
def test_portions_are_all_of_it_in_order_and_bounded(sizes: list[int]) -> None:
    some = Portions(map(batch, sizes))
    portions = list(iter(some.next, []))
    assert [len(work) for portion in portions for work in portion] == sizes
    assert all(len(portion) <= MOST for portion in portions)
    assert all(sum(map(len, portion)) < 2 * BATCH_ROWS for portion in portions)


def test_what_cannot_be_read_is_told_after_what_came_before_it() -> None:
    def works() -> Iterator[WorkBatch]:
        yield batch(1)
        yield batch(2)
        raise DataError("damaged")

    some = Portions(works())
    assert [len(work) for work in some.next()] == [1, 2]
    for _ in range(2):
        with pytest.raises(DataError, match="damaged"):
            some.next()


def report(day: str) -> EmbedReport:
    figures = ("chunks", "embedded", "cached", "quarantined", "deferred", "requests", "retries")
    money = ("input_tokens", "cost_nano_usd", "saved_nano_usd")
    return EmbedReport(
        partition=day,
        space="s",
        dimensions=1,
        wait_seconds=0.0,
        fingerprint="",
        path="",
        seconds=0.0,
        **dict.fromkeys((*figures, *money), 0),
    )


class Days:
    """Days that end when they are told to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.settled: list[str] = []
        self.broken = False
        self.gates: dict[str, asyncio.Event] = {}
        self.ending = 0
        self.most = 0

    async def end(self, day: str, error: Exception | None = None) -> Ended:
        gate = self.gates.setdefault(day, asyncio.Event())
        self.ending += 1
        self.most = max(self.most, self.ending)
        await gate.wait()
        self.ending -= 1
        if error is not None:
            raise error
        return Ended(report(day))

    async def settle(self, ended: Sequence[Ended]) -> None:
        if self.broken:
            raise StateError("the store is away")
        self.settled += [one.report.partition for one in ended]

    def tell(self, report: EmbedReport) -> None:
        self.told.append(report.partition)
        assert self.told == self.settled[: len(self.told)]  # the books first


@pytest.mark.anyio
async def test_days_end_a_few_at_a_time_and_are_told_of_in_order() -> None:
    days, names = Days(), [str(n) for n in range(closing.TOGETHER + 3 * closing.AT_ONCE)]
    ends = Closing(days.settle, days.tell)
    for name in reversed(names):  # the last one could end first
        days.gates[name] = asyncio.Event()
        asyncio.get_running_loop().call_soon(days.gates[name].set)
    for name in names:
        await ends.add(days.end(name))
    assert len(days.told) >= closing.TOGETHER  # of the others later
    assert [it.partition for it in await ends.reports()] == names == days.told == days.settled
    assert days.most <= closing.AT_ONCE + 1
    await ends.end()


@pytest.mark.anyio
async def test_a_day_that_cannot_end_is_raised_and_the_others_end_all_the_same() -> None:
    days = Days()
    ends = Closing(days.settle, days.tell)
    await ends.add(days.end("bad", DataError("the disk is full")))
    await ends.add(days.end("good"))
    await asyncio.sleep(0)
    for gate in days.gates.values():
        gate.set()
    with pytest.raises(DataError, match="the disk is full"):
        await ends.reports()
    await ends.end()
    assert days.told == ["good"]
    assert days.ending == 0


@pytest.mark.anyio
async def test_a_day_whose_books_are_not_right_is_not_told_of() -> None:
    days = Days()
    days.gates["day"] = asyncio.Event()
    days.gates["day"].set()
    days.broken = True
    ends = Closing(days.settle, days.tell)
    await ends.add(days.end("day"))
    with pytest.raises(StateError, match="away"):
        await ends.reports()
    await ends.end()
    assert days.told == []
