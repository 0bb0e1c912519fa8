"""Gathering into Arrow batches: every row counted, every batch bounded."""

import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.chunking import batches
from embedding_pipeline.chunking.batches import ChunkBatch, chunk_partition
from embedding_pipeline.chunking.config import ChunkingConfig
from embedding_pipeline.records import RAW_CHUNKS, Document, Rejected, Row, content_hash
from embedding_pipeline.tokens import ToktokCounter, default_counter

CONFIG = ChunkingConfig(max_tokens=32, overlap_tokens=4)
COUNTER = default_counter()


def _row(number: int, text: str = "some text", user: str | None = None) -> Row:
    return Row(f"r{number}", "doc", number, text, "p", user, {"n": number, "ü": "é"}, "here")


def _document(name: str, text: str) -> Document:
    return Document(name, text, "p", "u", {"of": name}, "there", "text")


def _bad(number: int) -> Rejected:
    return Rejected(f"here:{number}", "", "no_text", "")


def _table(found: list[ChunkBatch]) -> list[dict[str, object]]:
    return list(pa.Table.from_batches([one.chunks for one in found], RAW_CHUNKS).to_pylist())


def test_rows_are_kept_as_they_are() -> None:
    long = "a text longer than any bound on chunks " * 20
    (batch,) = chunk_partition([_row(3, long), _row(4, " x ", "u")], CONFIG, COUNTER)
    assert batch.chunks.schema.equals(RAW_CHUNKS)
    assert batch.chunks.to_pylist() == [
        {
            "chunk_id": "r3",
            "document_id": "doc",
            "ordinal": 3,
            "text": long,
            "content_hash": content_hash(long),
            "token_count": int(COUNTER.count([long])[0]),
            "project": "p",
            "user": None,
            "metadata": '{"n":3,"\\u00fc":"\\u00e9"}',
        },
        {
            "chunk_id": "r4",
            "document_id": "doc",
            "ordinal": 4,
            "text": " x ",
            "content_hash": content_hash(" x "),
            "token_count": int(COUNTER.count([" x "])[0]),
            "project": "p",
            "user": "u",
            "metadata": '{"n":4,"\\u00fc":"\\u00e9"}',
        },
    ]


def test_documents_are_split_and_their_chunks_named() -> None:
    text = "\n\n".join(f"Paragraph {number} with a few words in it." for number in range(30))
    rows = _table(list(chunk_partition([_document("a.md", text)], CONFIG, COUNTER)))
    assert len(rows) >= 10
    for ordinal, row in enumerate(rows):
        assert row["chunk_id"] == f"a.md#{ordinal:04d}"
        assert (row["document_id"], row["ordinal"], row["user"]) == ("a.md", ordinal, "u")
        assert row["metadata"] == '{"of":"a.md"}'
        assert isinstance(row["token_count"], int)
        assert row["token_count"] <= CONFIG.max_tokens


def test_nothing_in_nothing_out() -> None:
    assert list(chunk_partition([], CONFIG, COUNTER)) == []


def test_a_stretch_of_rejected_rows_only() -> None:
    found = list(chunk_partition(map(_bad, range(25)), CONFIG, COUNTER, batch_rows=10))
    assert [len(one.rejected) for one in found] == [10, 10, 5]
    assert all(one.chunks.num_rows == 0 for one in found)
    assert all(one.chunks.schema.equals(RAW_CHUNKS) for one in found)


_ITEMS = st.lists(
    st.one_of(
        st.builds(_row, st.integers(0, 9)),
        st.builds(_bad, st.integers(0, 9)),
        st.builds(_document, st.just("d"), st.sampled_from(["x", "many words here " * 40])),
    ),
    max_size=30,
)


@given(items=_ITEMS, rows=st.integers(1, 12))
def test_however_it_is_cut_the_rows_are_the_same(
    items: list[Row | Document | Rejected], rows: int
) -> None:
    found = list(chunk_partition(items, CONFIG, COUNTER, batch_rows=rows))
    assert _table(found) == _table(list(chunk_partition(items, CONFIG, COUNTER)))
    assert all(one.chunks.num_rows <= rows for one in found)
    assert sum(one.items for one in found) == len(items)
    rejected = [bad for one in found for bad in one.rejected]
    assert rejected == [item for item in items if isinstance(item, Rejected)]


def test_long_texts_fill_a_batch_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_BATCH_CHARS", 1000)
    items = [_row(number, "x" * 400) for number in range(9)]
    found = chunk_partition(items, CONFIG, COUNTER)
    assert [one.chunks.num_rows for one in found] == [3, 3, 3]


def test_batches_come_while_the_source_is_read() -> None:
    read = 0

    def endless() -> Iterator[Row]:
        nonlocal read
        while True:
            read += 1
            yield _row(read)

    found = chunk_partition(endless(), CONFIG, COUNTER, batch_rows=100)
    assert next(found).chunks.num_rows == 100
    assert read == 100


def test_tokens_are_counted_once_a_batch() -> None:
    class Watched(ToktokCounter):
        calls = 0

        def count(self, texts: object) -> npt.NDArray[np.int32]:
            Watched.calls += 1
            return super().count(texts)  # type: ignore[arg-type]

    list(chunk_partition(map(_row, range(1000)), CONFIG, Watched(), batch_rows=250))
    assert Watched.calls == 4


def test_metadata_that_is_no_utf8_takes_nothing_down() -> None:
    odd = Row("r", "d", 0, "text", "p", None, {"title": "\ud800"}, "here")
    (batch,) = chunk_partition([odd], CONFIG, COUNTER)
    assert json.loads(batch.chunks["metadata"][0].as_py()) == {"title": "\ud800"}
