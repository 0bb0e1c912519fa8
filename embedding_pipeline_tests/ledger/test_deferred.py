"""What is left for later is named until a pass over its day does not leave it any more."""

import pytest
from sqlalchemy import Connection

from embedding_pipeline.cache import database
from embedding_pipeline.ledger.deferred import (
    BUDGET,
    OUTAGE,
    Backlog,
    Deferred,
    backlogs,
    chunk_ids,
    close_passes,
    put_off,
)
from embedding_pipeline.records import Account, Priority, Space, digest_of
from embedding_pipeline.state.store import Store

pytestmark = pytest.mark.anyio

SPACE = Space("fake", "hash", "", 8)
DAY, NEXT = "2026-01-01", "2026-01-02"


def chunk(name: str, tokens: int = 5, day: str = DAY, **more: str) -> Deferred:
    return Deferred(
        Account(more.get("project", "a"), "", day),
        name,
        digest_of(name),
        Priority(more.get("priority", "normal")),
        more.get("reason", BUDGET),
        tokens,
    )


async def test_a_pass_replaces_what_earlier_ones_left(store: Store) -> None:
    number = await store.write(lambda c: database.space_id(c, SPACE))

    def one_pass(connection: Connection, name: str, *chunks: Deferred) -> int:
        put_off(connection, number, chunks, name, 7)
        return close_passes(connection, number, {DAY: name})

    await store.write(lambda c: put_off(c, number, [chunk("other", day=NEXT)], "p0", 5))
    assert await store.write(lambda c: one_pass(c, "p1", chunk("x"), chunk("y"))) == 0
    assert await store.read(lambda c: chunk_ids(c, number, DAY)) == {"x", "y"}
    assert await store.write(lambda c: one_pass(c, "p2", chunk("y"), chunk("z"))) == 1
    assert await store.read(lambda c: chunk_ids(c, number, DAY)) == {"y", "z"}
    assert await store.write(lambda c: one_pass(c, "p3")) == 2
    assert await store.read(lambda c: chunk_ids(c, number, DAY)) == frozenset()
    assert await store.read(lambda c: chunk_ids(c, number, NEXT)) == {"other"}


async def test_backlogs_sum_up_by_day_payer_and_reason(store: Store) -> None:
    number = await store.write(lambda c: database.space_id(c, SPACE))
    chunks = [
        chunk("1", 5),
        chunk("2", 9, priority="urgent"),
        chunk("3", 4, project="b"),
        chunk("4", 2, reason=OUTAGE),
        chunk("5", 1, day=NEXT),
    ]
    await store.write(lambda c: put_off(c, number, chunks, "p", 7))
    found = await store.read(backlogs)
    name, urgent = str(SPACE), Priority.URGENT
    assert found == [
        Backlog(name, Account("a", "", DAY), BUDGET, urgent, 2, 14, 5, "p", 7),
        Backlog(name, Account("a", "", DAY), OUTAGE, urgent, 1, 2, 2, "p", 7),
        Backlog(name, Account("b", "", DAY), BUDGET, urgent, 1, 4, 4, "p", 7),
        Backlog(name, Account("a", "", NEXT), BUDGET, Priority.NORMAL, 1, 1, 1, "p", 7),
    ]
    assert await store.read(lambda c: backlogs(c, number + 1)) == []
