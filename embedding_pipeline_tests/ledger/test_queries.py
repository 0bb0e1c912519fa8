"""Sums of the ledger are sums of its entries, whatever is asked; an odd entry is found."""

from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete, update

from embedding_pipeline.cache.database import space_id
from embedding_pipeline.ledger import flights
from embedding_pipeline.ledger.flights import SETTLED, UNKNOWN, Flight
from embedding_pipeline.ledger.queries import (
    Balance,
    LedgerSum,
    balance,
    balances,
    entries,
    sums,
    sums_of,
)
from embedding_pipeline.ledger.shares import Share
from embedding_pipeline.records import Account, Kind, Space
from embedding_pipeline.state.schema import ledger
from embedding_pipeline.state.store import Store
from embedding_pipeline_tests.stores import open_store

pytestmark = pytest.mark.anyio

SPACES = [Space("openai", "a", "", 4), Space("local", "b", "", 4)]
accounts = st.builds(
    Account,
    st.sampled_from(["p", "q"]),
    st.sampled_from(["", "u"]),
    st.sampled_from(["d1", "d2"]),
)
bills = st.tuples(
    st.integers(1, 2),
    st.sampled_from([Kind.API, Kind.LOCAL]),
    st.lists(accounts, min_size=1, max_size=4, unique=True),
    st.integers(0, 10**6),
    st.sampled_from([None, 20, 130]),
    st.sampled_from([SETTLED, UNKNOWN]),
    st.integers(0, 100),
)
Bill = tuple[int, Kind, list[Account], int, int | None, str, int]


def book(connection: Connection, bill: Bill) -> None:
    space, kind, payers, tokens, price, outcome, at = bill
    shares = tuple(Share(account, n + 1) for n, account in enumerate(payers))
    flight = Flight("f", "o", space, f"run{space}", "openai", kind, price, shares)
    flights.settle(
        connection,
        flight,
        shares,
        tokens=tokens,
        requests=2,
        wait_ms=7,
        provider="openai",
        began_ms=at,
        outcome=outcome,
    )


def know_spaces(connection: Connection) -> None:
    assert [space_id(connection, space) for space in SPACES] == [1, 2]


def total(found: list[LedgerSum]) -> Counter[str]:
    figures: Counter[str] = Counter()
    for entry in found:
        figures["tokens"] += entry.tokens
        figures["cost"] += entry.cost_nano_usd
        figures["unknown"] += entry.unknown_nano_usd
        figures["requests"] += entry.requests
        figures["wait"] += entry.wait_ms
    return figures


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(todo=st.lists(bills, max_size=12), start=st.integers(0, 100), end=st.integers(0, 100))
async def test_sums_are_the_bills_by_any_division(
    tmp_path: Path, todo: list[Bill], start: int, end: int
) -> None:
    with open_store(tmp_path) as store:
        await store.write(know_spaces)
        await store.write(lambda c: c.execute(delete(ledger)))

        def work(connection: Connection) -> None:
            for bill in todo:
                book(connection, bill)

        await store.write(work)
        whole = total(await store.read(sums))
        assert whole["tokens"] == sum(bill[3] for bill in todo)
        assert whole["cost"] == sum(bill[3] * (bill[4] or 0) for bill in todo)
        assert whole["unknown"] == sum(b[3] * (b[4] or 0) for b in todo if b[5] == UNKNOWN)
        assert whole["requests"] == 2 * len(todo)
        priced = await store.read(sums)
        assert sum(one.unpriced_tokens for one in priced) == sum(
            bill[3] for bill in todo if bill[4] is None
        )
        days = [await store.read(partial(sums, partition=d)) for d in ("d1", "d2")]
        assert total(days[0]) + total(days[1]) == +whole
        apart = {"d1": days[0], "d2": days[1], "none": []}
        assert await store.read(partial(sums_of, partitions=list(apart))) == apart
        runs = [await store.read(partial(sums, run_id=r)) for r in ("run1", "run2")]
        assert total(runs[0]) + total(runs[1]) == +whole
        span = await store.read(lambda c: sums(c, start_ms=start, end_ms=end))
        assert total(span)["tokens"] == sum(b[3] for b in todo if start <= b[6] < end)
        assert (await store.read(balance)).unbalanced == 0


async def test_an_entry_that_is_not_tokens_times_price_is_found(store: Store) -> None:
    payers = [Account("p", "", "d1"), Account("p", "", "d2")]
    await store.write(know_spaces)
    await store.write(lambda c: book(c, (1, Kind.API, payers, 50, 20, SETTLED, 0)))
    wrong = update(ledger).where(ledger.c.partition == "d2").values(cost_nano_usd=1)
    await store.write(lambda c: c.execute(wrong))
    verdict = await store.read(balance)
    assert (verdict.entries, verdict.unbalanced) == (2, 1)
    assert (await store.read(lambda c: balance(c, "d1"))).unbalanced == 0
    assert (await store.read(lambda c: balance(c, "d2"))).unbalanced == 1
    apart = {"d1": Balance(1, 0), "d2": Balance(1, 1), "none": Balance(0, 0)}
    assert await store.read(lambda c: balances(c, list(apart))) == apart


async def test_entries_say_for_whom_a_vector_was_paid(store: Store) -> None:
    account = Account("p", "u", "d1")
    await store.write(know_spaces)
    await store.write(lambda c: book(c, (2, Kind.LOCAL, [account], 5, None, SETTLED, 0)))
    found = await store.read(lambda c: entries(c, [1, 2, *range(100, 1200)]))
    assert {number: (entry.account, entry.kind) for number, entry in found.items()} == {
        1: (account, Kind.LOCAL)
    }


async def test_an_empty_ledger_has_no_sums_and_balances(store: Store) -> None:
    assert await store.read(sums) == []
    assert (await store.read(balance)).entries == 0
