"""Ids that occur once, in little memory."""

from collections.abc import Iterator
from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.records import Document, Rejected, Row
from embedding_pipeline.sources.base import ChunkSource, Item
from embedding_pipeline.sources.unique import SeenIds, UniqueIds

DAY = date(2025, 3, 18)


class ListSource(ChunkSource):
    def __init__(self, items: list[Item]) -> None:
        self._items = items

    def read(self, day: date) -> Iterator[Item]:
        yield from self._items


def _row(name: str, text: str = "t") -> Row:
    return Row(name, name, 0, text, "p", None, {}, f"at {name}")


def _document(name: str) -> Document:
    return Document(name, "t", "p", None, {}, f"at {name}", "text")


def test_the_first_stays_and_later_ones_are_named() -> None:
    bad = Rejected("x", "a", "no_text", "")
    source = UniqueIds(ListSource([bad, _row("a", "one"), _row("b"), _row("a", "two")]))
    assert list(source.read(DAY)) == [
        bad,
        _row("a", "one"),
        _row("b"),
        Rejected("at a", "a", "duplicate_id", "two"),
    ]


def test_documents_and_rows_share_their_ids() -> None:
    first, second = UniqueIds(ListSource([_document("a"), _row("a")])).read(DAY)
    assert first == _document("a")
    assert isinstance(second, Rejected)


def test_another_day_starts_anew() -> None:
    source = UniqueIds(ListSource([_row("a")]))
    assert list(source.read(DAY)) == list(source.read(DAY)) == [_row("a")]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3)))
def test_a_set_of_ids_is_a_set(names: list[str]) -> None:
    seen, known = SeenIds(), set[str]()
    for name in names:
        assert seen.add(name) == (name not in known)
        known.add(name)
    assert len(seen) == len(known)


def test_it_grows_without_forgetting() -> None:
    seen = SeenIds()
    assert all(seen.add(str(number)) for number in range(20_000))
    assert not any(seen.add(str(number)) for number in range(20_000))
    assert len(seen) == 20_000
