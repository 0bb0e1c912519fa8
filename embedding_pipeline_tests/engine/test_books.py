"""The ledger against the API's own books, under every fault: to the token and the nano-dollar.

The identity, with the words of ``fake_openai.books``:

- settled = reported: what arrived is booked as the answer says it is billed;
- unknown = lost + doubtful: what was billed and did not arrive, and what nobody can know.

So the ledger is the bill, plus at most what was doubtful: ``ledger = bill + doubtful`` where
the API reports what it bills.
"""

import os
from pathlib import Path

import pytest

from embedding_pipeline.ledger import queries
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.engine.oracle import assert_right, prepare, run
from embedding_pipeline_tests.engine.quick import QuickClock, settings_for
from embedding_pipeline_tests.engine.test_faults import KINDS, LASTING, STOPS
from embedding_pipeline_tests.fake_openai.faults import Fault
from embedding_pipeline_tests.fake_openai.server import FakeOpenAI, listening

pytestmark = pytest.mark.anyio

TEXTS = [f"chunk {i} of some length, {'and so on ' * (i % 7)}" for i in range(520)]
FIRST = 500
"""The others come later, for faults that happened to strike none of these."""

PRICE = 20


async def ledger_of(url: str) -> tuple[int, int]:
    """What all entries add up to, and the unknown ones; nano-USD."""
    with Store(url, QuickClock()) as store:
        sums = await store.read(queries.sums)
        assert (await store.read(queries.balance)).unbalanced == 0
    cost = sum(entry.cost_nano_usd for entry in sums)
    return cost, sum(entry.unknown_nano_usd for entry in sums)


@pytest.mark.parametrize("seed", range(int(os.environ.get("BOOKS_SEEDS", "1"))))
async def test_the_ledger_is_the_bill_under_every_fault(seed: int, tmp_path: Path) -> None:
    passing = [
        Fault(kind, next=1 if kind in LASTING else 2, rate=0.4)
        for kind in KINDS
        if kind not in STOPS and kind != "double_usage"
    ]
    async with listening(FakeOpenAI()) as fake:
        settings = settings_for(
            tmp_path,
            fake.base_url,
            requests={"max_inputs": 10},
            limits={"max_in_flight": 4},  # few share the processor: none takes long by itself
            retry={"timeout_seconds": 5.0, "max_attempts": 40, "max_seconds": 100_000},
        )
        prepare(settings, TEXTS[:FIRST])
        fake.fault(*passing, seed=seed)
        await run(settings)
        prepare(settings, TEXTS)
        missing = {fault.kind for fault in passing} - {*fake.books.faults}
        fake.fault(*(Fault(kind, next=1) for kind in sorted(missing)))
        await run(settings)
        for kind in sorted(STOPS):  # each ends its run
            fake.fault(Fault(kind, next=1))
            await run(settings, redrive=True)
        fake.fault()
        last = await run(settings, redrive=True)
        books = fake.books
        assert_right(last, TEXTS)
        assert len(last.vectors) == len(TEXTS)
        assert set(books.faults) == {*KINDS} - {"double_usage"}, "every kind struck"
        assert books.tokens == books.reported + books.lost
        assert last.settled == books.reported
        assert last.unknown == books.lost + books.doubtful
        assert books.lost > 0
        assert books.doubtful > 0
        cost, unknown = await ledger_of(settings.state)
    assert cost - books.doubtful * PRICE == books.cost_nano_usd
    assert unknown >= books.lost * PRICE


async def test_what_the_api_says_it_bills_is_booked(tmp_path: Path) -> None:
    async with listening(FakeOpenAI()) as fake:
        settings = settings_for(tmp_path, fake.base_url, requests={"max_inputs": 10})
        prepare(settings, TEXTS[:60])
        fake.fault(Fault("double_usage", next=3))
        outcome = await run(settings)
        books = fake.books
    assert outcome.settled == books.reported > books.tokens
    assert outcome.unknown == books.lost == 0
