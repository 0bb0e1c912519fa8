"""``raw_chunks`` and ``rejected_rows`` of one day, from a source in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import pytest

from embedding_pipeline.chunking.config import ChunkingConfig
from embedding_pipeline.errors import DataError, SourceError
from embedding_pipeline.pipeline.raw import build_raw_chunks
from embedding_pipeline.pipeline.reports import RawReport
from embedding_pipeline.records import Document, Rejected, Row, content_hash
from embedding_pipeline.sources.base import ChunkSource, Item
from embedding_pipeline.tokens import ToktokCounter
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline.vectors.partition import PartitionFile
from embedding_pipeline_tests.clock import FakeClock
from embedding_pipeline_tests.vectors.building import DAY, NEXT


@dataclass(frozen=True)
class Listed(ChunkSource):
    """What each day holds, written down; an error in the list is raised in its place."""

    days: dict[str, list[Item | Exception]]

    def read(self, day: date) -> Iterator[Item]:
        for item in self.days.get(str(day), []):
            if isinstance(item, Exception):
                raise item
            yield item


def row(name: str, text: str = "some text") -> Row:
    return Row(name, f"doc-{name}", 0, text, "p", None, {"k": 1}, f"file:{name}")


def bad(n: int, reason: str = "no_text") -> Rejected:
    return Rejected(f"file:{n}", f"r{n}", reason, "what stood there")


def build(datasets: Datasets, *items: Item | Exception) -> RawReport:
    source = Listed({DAY: list(items)})
    return build_raw_chunks(
        source, datasets, ToktokCounter(), ChunkingConfig(), DAY, clock=FakeClock()
    )


def rows(file: PartitionFile) -> list[dict[str, object]]:
    return [row for batch in file.iter_batches() for row in batch.to_pylist()]


def test_rows_become_chunks_with_counts_and_hashes(datasets: Datasets) -> None:
    report = build(datasets, row("a"), replace(row("b", "naïve <|endoftext|>"), user="u"))
    assert (report.rows, report.chunks, report.rejected, report.examples) == (2, 2, {}, ())
    first, second = rows(datasets.raw_chunks(DAY))
    assert first == {
        "chunk_id": "a",
        "document_id": "doc-a",
        "ordinal": 0,
        "text": "some text",
        "content_hash": content_hash("some text"),
        "token_count": 2,
        "project": "p",
        "user": None,
        "metadata": '{"k":1}',
    }
    assert (second["text"], second["user"]) == ("naïve <|endoftext|>", "u")
    tokens = ToktokCounter().count(["some text", "naïve <|endoftext|>"])
    assert report.input_tokens == int(np.sum(tokens))


def test_documents_are_split(datasets: Datasets) -> None:
    text = "\n\n".join(f"Paragraph {n} has a few words of its own." for n in range(300))
    report = build(datasets, Document("d", text, "p", None, {}, "d.txt", "text"))
    chunks = rows(datasets.raw_chunks(DAY))
    assert report.rows == 1
    assert report.chunks == len(chunks) > 3
    assert [chunk["ordinal"] for chunk in chunks] == list(range(len(chunks)))
    assert sum(int(str(chunk["token_count"])) for chunk in chunks) == report.input_tokens


def test_bad_rows_are_counted_named_and_kept_aside(datasets: Datasets) -> None:
    problems = [bad(n, "no_text" if n % 2 else "bad_json") for n in range(30)]
    report = build(datasets, row("a"), *problems, row("b"))
    assert (report.rows, report.chunks) == (32, 2)
    assert report.rejected == {"bad_json": 15, "no_text": 15}
    assert report.examples == tuple(
        f"file:{n}: {'no_text' if n % 2 else 'bad_json'}" for n in range(10)
    )
    kept = rows(datasets.rejected_rows(DAY))
    assert [line["location"] for line in kept] == [f"file:{n}" for n in range(30)]
    assert kept[1]["content"] == "what stood there"


def test_examples_never_hold_text(datasets: Datasets) -> None:
    report = build(datasets, Rejected("file:1", "r", "no_project", "a secret text"))
    assert "secret" not in repr(report)


def test_a_day_without_bad_rows_forgets_the_earlier_ones(datasets: Datasets) -> None:
    build(datasets, bad(1))
    assert datasets.rejected_rows(DAY).exists()
    build(datasets, row("a"))
    assert not datasets.rejected_rows(DAY).exists()


def test_a_day_without_data_is_an_empty_partition(datasets: Datasets) -> None:
    report = build(datasets)
    assert report == RawReport(DAY, rows=0, chunks=0, input_tokens=0)
    assert datasets.raw_chunks(DAY).rows() == 0
    assert not datasets.rejected_rows(DAY).exists()


def test_lone_surrogates_in_a_bad_row_do_not_stop_its_being_kept(datasets: Datasets) -> None:
    build(datasets, Rejected("caf\udce9.json:1", "\ud800", "not_utf8", "\udfff"), row("a"))
    assert rows(datasets.rejected_rows(DAY)) == [
        {"location": "caf?.json:1", "row_id": "?", "reason": "not_utf8", "content": "?"}
    ]
    assert datasets.raw_chunks(DAY).rows() == 1


def test_a_source_that_breaks_half_way_leaves_the_old_day(datasets: Datasets) -> None:
    build(datasets, row("old"), bad(1))
    with pytest.raises(SourceError, match="gone"):
        build(datasets, row("new"), bad(2), bad(3), SourceError("the disk is gone"))
    assert [chunk["chunk_id"] for chunk in rows(datasets.raw_chunks(DAY))] == ["old"]
    assert [line["row_id"] for line in rows(datasets.rejected_rows(DAY))] == ["r1"]
    folders = [datasets.root / name for name in ("raw_chunks", "rejected_rows")]
    assert [len(list(folder.iterdir())) for folder in folders] == [1, 1]


def test_each_day_is_its_own(datasets: Datasets) -> None:
    source = Listed({DAY: [row("a")], NEXT: [row("b"), row("c")]})
    for day in (NEXT, DAY):
        build_raw_chunks(source, datasets, ToktokCounter(), ChunkingConfig(), day)
    assert datasets.raw_chunks(DAY).rows() == 1
    assert datasets.raw_chunks(NEXT).rows() == 2


def test_what_is_no_day_is_refused(datasets: Datasets) -> None:
    with pytest.raises(DataError, match="is not a day"):
        build_raw_chunks(Listed({}), datasets, ToktokCounter(), ChunkingConfig(), "today")
