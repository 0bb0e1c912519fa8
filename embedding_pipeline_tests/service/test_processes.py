"""Two real processes on one SQLite file: each text is paid once, even when one is killed."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from embedding_pipeline.cache import database
from embedding_pipeline.cache.tier import Lookup
from embedding_pipeline.embedders.fake import fake_vectors
from embedding_pipeline.records import digest_of
from embedding_pipeline_tests.service.child import TEXTS
from embedding_pipeline_tests.service.harness import SPACE, WIDTH, Books, read_books
from embedding_pipeline_tests.stores import open_store

pytestmark = pytest.mark.anyio

Child = subprocess.Popen[str]
IN_FLIGHT, REQUEST = 4, 8
TOKENS = sum(map(len, TEXTS))


@contextmanager
def child(folder: Path, name: str, stuck_at: int = -1) -> Iterator[Child]:
    """A process that is open and waits for a line before it begins."""
    module = "embedding_pipeline_tests.service.child"
    command = [sys.executable, "-m", module, str(folder), name, str(stuck_at)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert _line(process) == "open"
            yield process
        finally:
            process.kill()


def begin(process: Child) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def _line(process: Child) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def billed(folder: Path, name: str) -> Counter[str]:
    file = folder / f"{name}.bill"
    return Counter(file.read_text().splitlines() if file.exists() else ())


async def result(folder: Path) -> Books:
    """The books, once every vector was found to be right."""

    def look(connection: Connection) -> Lookup:
        number = database.space_id(connection, SPACE)
        return database.get_many(connection, number, SPACE, list(map(digest_of, TEXTS)))

    with open_store(folder) as store:
        found = await store.write(look)
        assert found.found.all()
        assert (found.vectors == fake_vectors("hash", TEXTS, WIDTH)).all()
        return await store.read(read_books)


async def test_two_processes_pay_each_text_once(tmp_path: Path) -> None:
    with child(tmp_path, "one") as one, child(tmp_path, "two") as two:
        begin(one)
        begin(two)
        assert [_line(one), _line(two)] == ["500", "500"]
    bills = billed(tmp_path, "one") + billed(tmp_path, "two")
    assert set(bills) == set(TEXTS)
    assert set(bills.values()) == {1}
    books = await result(tmp_path)
    assert (books.settled, books.unknown) == (TOKENS, 0)
    assert (books.flights, books.claims, books.owners) == (0, 0, 0)


async def test_one_killed_half_way_the_other_finishes_and_the_books_say_what_was_lost(
    tmp_path: Path,
) -> None:
    with child(tmp_path, "dies", stuck_at=5) as dies, child(tmp_path, "lives") as lives:
        begin(dies)
        assert _line(dies) == "stuck"
        begin(lives)
        dies.kill()
        assert _line(lives) == "500"
    bills = billed(tmp_path, "dies") + billed(tmp_path, "lives")
    again = sum(times - 1 for times in bills.values())
    assert 0 < again <= IN_FLIGHT * REQUEST, "only what was out is paid again"
    assert max(bills.values()) == 2
    books = await result(tmp_path)
    paid = sum(len(text) * times for text, times in bills.items())
    assert books.settled == TOKENS
    assert books.settled + books.unknown >= paid, "nothing that was billed is missing"
    assert 0 < books.unknown <= IN_FLIGHT * REQUEST * len(TEXTS[0])
    assert (books.flights, books.claims, books.owners) == (0, 0, 0)
