"""Refused chunks are named until they are embedded after all, or redriven."""

from collections.abc import Iterable

import pytest
from sqlalchemy import Connection

from embedding_pipeline.cache.database import space_id
from embedding_pipeline.ledger import quarantine
from embedding_pipeline.ledger.quarantine import BAD_REPLY, REFUSED, Held
from embedding_pipeline.records import Account, Digest, Space, digest_of
from embedding_pipeline.state.store import Store

pytestmark = pytest.mark.anyio

SPACE = Space("openai", "model", "", 4)
DAY, NEXT = "2026-01-01", "2026-01-02"
POISON, OTHER = digest_of("poison"), digest_of("other")


def held(
    name: str, reason: str = REFUSED, *, day: str = DAY, digest: Digest = POISON, attempts: int = 1
) -> Held:
    account = Account("project", "", day)
    return Held(str(SPACE), account, name, digest, reason, "400", attempts)


async def hold(store: Store, *chunks: Held, now: int = 1) -> None:
    def work(connection: Connection) -> None:
        quarantine.hold(connection, space_id(connection, SPACE), chunks, now)

    await store.write(work)


async def lasting(store: Store, digests: Iterable[Digest] = (POISON, OTHER)) -> dict[Digest, str]:
    return await store.read(lambda c: quarantine.lasting(c, 1, list(digests)))


async def test_what_is_held_is_listed_with_its_reason(store: Store) -> None:
    await hold(store, held("b", day=NEXT), held("a"), held("c", BAD_REPLY), now=5)
    found = await store.read(quarantine.listing)
    assert [(h.account.partition, h.chunk_id, h.reason) for h in found] == [
        (DAY, "a", REFUSED),
        (DAY, "c", BAD_REPLY),
        (NEXT, "b", REFUSED),
    ]
    first = found[0]
    assert (first.space, first.account.project, first.code) == (str(SPACE), "project", "400")
    assert (first.digest, first.attempts, first.first_ms, first.last_ms) == (POISON, 1, 5, 5)
    assert len(await store.read(lambda c: quarantine.listing(c, NEXT))) == 1


async def test_held_again_its_attempts_add_up_and_the_news_count(store: Store) -> None:
    await hold(store, held("a", BAD_REPLY), now=1)
    await hold(store, held("a", REFUSED, digest=OTHER, attempts=3), now=9)
    (found,) = await store.read(quarantine.listing)
    assert (found.reason, found.digest, found.attempts) == (REFUSED, OTHER, 4)
    assert (found.first_ms, found.last_ms) == (1, 9)


async def test_only_reasons_that_last_keep_a_key_from_being_tried(store: Store) -> None:
    await hold(store, held("a"), held("b", BAD_REPLY, digest=OTHER))
    assert await lasting(store) == {POISON: REFUSED}
    assert await store.read(lambda c: quarantine.lasting(c, 2, [POISON])) == {}
    assert await lasting(store, []) == {}


async def test_one_redriven_chunk_frees_its_key_until_it_is_refused_again(store: Store) -> None:
    await hold(store, held("a"), held("b", day=NEXT), held("c", digest=OTHER))
    assert await store.write(lambda c: quarantine.redrive(c, chunk_ids=["b"])) == [NEXT]
    assert await lasting(store) == {OTHER: REFUSED}
    await hold(store, held("b", day=NEXT))
    assert await lasting(store) == {POISON: REFUSED, OTHER: REFUSED}


async def test_redriving_by_day_by_name_and_altogether(store: Store) -> None:
    await hold(store, held("a"), held("a", day=NEXT, digest=OTHER))
    redrive = quarantine.redrive
    assert await store.write(lambda c: redrive(c, chunk_ids=["a"], partition=DAY)) == [DAY]
    assert await lasting(store) == {OTHER: REFUSED}
    assert await store.write(lambda c: redrive(c, partition="2026-02-02")) == []
    assert await store.write(lambda c: redrive(c, chunk_ids=["nobody"])) == []
    assert await store.write(redrive) == [DAY, NEXT]
    assert await lasting(store) == {}


async def test_thousands_are_redriven_by_name(store: Store) -> None:
    names = [f"chunk {n}" for n in range(3000)]
    await hold(store, *(held(name, digest=digest_of(name)) for name in names))
    assert await store.write(lambda c: quarantine.redrive(c, chunk_ids=names)) == [DAY]
    assert await lasting(store, map(digest_of, names)) == {}


async def test_what_was_embedded_after_all_is_forgotten_and_the_rest_kept(store: Store) -> None:
    await hold(store, held("a"), held("b"), held("c"), held("a", day=NEXT))
    removed = await store.write(lambda c: quarantine.reset_partitions(c, 1, {DAY: {"b", "x"}}))
    assert removed == 2
    assert await store.read(lambda c: quarantine.chunk_ids(c, 1, DAY)) == {"b"}
    assert await store.read(lambda c: quarantine.chunk_ids(c, 1, NEXT)) == {"a"}
    both = await store.read(lambda c: quarantine.chunk_ids_of(c, 1, [DAY, NEXT, "2020-01-01"]))
    assert both == {DAY: {"b"}, NEXT: {"a"}, "2020-01-01": frozenset()}
    assert await store.read(lambda c: quarantine.chunk_ids(c, 2, DAY)) == frozenset()


async def test_holding_nothing_is_nothing(store: Store) -> None:
    await hold(store)
    assert await store.read(quarantine.listing) == []
