"""Larger real-world samples, where they are at hand."""

import gzip
import json
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from embedding_pipeline.records import Document, Rejected, Row
from embedding_pipeline.sources.base import Item
from embedding_pipeline.sources.config import SourceConfig, SourceFields
from embedding_pipeline.sources.files import FilesSource
from embedding_pipeline_tests.sources.conftest import Folder

FIELDS = SourceFields(id="id", document_id="doc_key", project="source")
FIRST_DAY = date(2025, 3, 18)


def _arxiv(path: Path, day: date) -> list[Item]:
    config = SourceConfig(kind="files", path=str(path), fields=FIELDS)
    return list(FilesSource(config, FIRST_DAY).read(day))


def test_arxiv_by_its_date_column(shared_data: Path) -> None:
    items = _arxiv(shared_data / "arxiv_daily.jsonl.gz", FIRST_DAY)
    with gzip.open(shared_data / "arxiv_daily.jsonl.gz", "rt") as lines:
        expected = [row for row in map(json.loads, lines) if row["date"] == str(FIRST_DAY)]
    assert [(item.row_id, item.text) for item in items if isinstance(item, Row)] == [
        (row["id"], row["text"]) for row in expected
    ]
    assert len(items) == len(expected)


def test_arxiv_a_file_a_day(shared_data: Path, tmp_path: Path) -> None:
    days: dict[str, list[bytes]] = {}
    with gzip.open(shared_data / "arxiv_daily.jsonl.gz") as lines:
        for line in lines:
            days.setdefault(json.loads(line)["date"], []).append(line)
    for day, rows in days.items():
        (tmp_path / f"{day}.jsonl.gz").write_bytes(gzip.compress(b"".join(rows)))
    items = [
        item
        for offset in range(60)
        for item in _arxiv(tmp_path / "{date}.jsonl.gz", FIRST_DAY + timedelta(offset))
    ]
    texts = [item.text for item in items if isinstance(item, Row)]
    assert (len(items), len(texts), len(set(texts))) == (12_471, 12_471, 8_520)


def test_nasty_strings_come_through_or_have_a_reason(shared_data: Path, folder: Folder) -> None:
    content = (shared_data / "nasty" / "strings.jsonl.gz").read_bytes()
    folder.write("2025-03-18.jsonl.gz", content)
    items = folder.read("{date}.jsonl.gz")
    written = [json.loads(line) for line in gzip.decompress(content).splitlines()]
    assert len(items) == len(written)
    for item, row in zip(items, written, strict=True):
        if isinstance(item, Row):
            assert item.text == row["text"]
        else:
            assert isinstance(item, Rejected)
            assert (item.reason == "no_text") == (not row["text"].strip())
    assert sum(isinstance(item, Row) for item in items) > 450


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("eng_spa_mult.md", "markdown"),
        ("norwich-city.txt", "text"),
        ("fake-text-utf-16.txt", "not_utf8"),
        ("fake-text-utf-32.txt", "not_utf8"),
        ("fake-text-utf-16-le.txt", "nul_byte"),
        ("fake-text-all-whitespace.txt", "no_text"),
        ("stanley-cups-utf-16.csv", "not_utf8"),
        ("test_mskanji.csv", "missing_column"),
        ("simple.json", "not_json_lines"),
        ("test.json", "not_json_lines"),
        ("random.bin", "unknown_format"),
        ("fake-memo.pdf", "unknown_format"),
    ],
)
def test_nasty_files(name: str, outcome: str, shared_data: Path, folder: Folder) -> None:
    folder.write(f"2025-03-18/{name}", (shared_data / "nasty" / "files" / name).read_bytes())
    (item,) = folder.read("{date}/*")
    assert (item.markup if isinstance(item, Document) else _reason(item)) == outcome


def _reason(item: Item) -> str:
    assert isinstance(item, Rejected)
    return item.reason


def test_all_nasty_files_at_once(shared_data: Path, folder: Folder) -> None:
    names = [file.name for file in (shared_data / "nasty" / "files").iterdir()]
    for name in names:
        folder.write(f"2025-03-18/{name}", (shared_data / "nasty" / "files" / name).read_bytes())
    items = folder.read("{date}/*")
    kinds = Counter(type(item).__name__ for item in items)
    assert kinds["Document"] >= 8
    assert {item.location.rpartition("/")[2].partition(":")[0] for item in items} == set(names)
