"""Rows out of real files, and every kind of damage one row alone."""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from embedding_pipeline.records import Rejected, Row
from embedding_pipeline.sources import lines
from embedding_pipeline.sources.base import Item
from embedding_pipeline.sources.config import SourceFields
from embedding_pipeline_tests.sources.conftest import DAY, Folder, Reads

Reasons = Callable[[list[Item]], list[str]]

GOOD = b'{"id": "a", "text": "one"}\n'
LAST = b'{"id": "z", "text": "last"}\n'


def _texts(items: list[Item]) -> list[str]:
    return [item.text for item in items if isinstance(item, Row)]


def _rejected(items: list[Item]) -> list[Rejected]:
    return [item for item in items if isinstance(item, Rejected)]


# JSON lines


def test_json_lines(reads: Reads) -> None:
    (row,) = reads(
        ".jsonl",
        '{"id": 7, "document_id": "d", "text": "Grüße 🧠", "project": "p", "user": "u", "n": [1]}',
    )
    assert isinstance(row, Row)
    assert (row.row_id, row.document_id, row.text) == ("7", "d", "Grüße 🧠")
    assert (row.project, row.user, row.metadata) == ("p", "u", {"n": [1]})
    assert row.location.endswith(f"{DAY}.jsonl:1")


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json", ".JSONL"])
@pytest.mark.parametrize("packed", [False, True])
def test_names_that_hold_json_lines(suffix: str, packed: bool, reads: Reads) -> None:
    content = GOOD + LAST
    if packed:
        items = reads(f"{suffix}.gz", gzip.compress(content))
    else:
        items = reads(suffix, content)
    assert _texts(items) == ["one", "last"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": "b", "text": "caf\xe9"}', "not_utf8"),
        (b'{"id": "b", "text": "\\ud800"}', "not_utf8"),
        (b'{"id": "b", "text": "x\\u0000"}', "nul_byte"),
        (b'{"id": "b", "text": "\x00"}', "bad_json"),
        (b"\x00\x00\x00\x00", "bad_json"),
        (b'{"id": "b", "text": ', "bad_json"),
        (b"not json", "bad_json"),
        (b'{"id": 1' + b"1" * 5000 + b', "text": "t"}', "bad_json"),
        (b'["id", "text"]', "wrong_type"),
        (b"null", "wrong_type"),
        (b'{"id": "b", "text": 1}', "wrong_type"),
        (b'{"id": "b", "text": "  "}', "no_text"),
        (b'{"text": "t"}', "no_id"),
    ],
)
def test_a_bad_line_costs_itself_alone(
    line: bytes, reason: str, reads: Reads, reasons: Reasons
) -> None:
    items = reads(".jsonl", GOOD + line + b"\n" + LAST)
    assert reasons(items) == ["ok", reason, "ok"]
    (rejected,) = _rejected(items)
    assert rejected.location.endswith(":2")
    assert rejected.content == line.decode("utf-8", "replace")[:1000]


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"id": "b", "text": "t", "x": ' + b"[" * 3000])
def test_brackets_without_end(line: bytes, reads: Reads, reasons: Reasons) -> None:
    assert reasons(reads(".jsonl", GOOD + line + b"\n" + LAST)) == ["ok", "bad_json", "ok"]


def test_deep_but_valid_json(reads: Reads, reasons: Reasons) -> None:
    for depth in (50, 400, 900, 5000):
        deep = b'{"id": "b", "text": "t", "x": ' + b"[" * depth + b"]" * depth + b"}\n"
        first, middle, last = reads(".jsonl", GOOD + deep + LAST)
        assert _texts([first, last]) == ["one", "last"]
        if isinstance(middle, Rejected):
            assert middle.reason in {"too_deep", "bad_json"}
        else:
            assert isinstance(middle, Row)
            json.dumps(middle.metadata)


@pytest.mark.parametrize("torn", [b'{"id": "b", "te', b'{"id": "b", "text": "caf\xc3', b"{"])
def test_a_torn_last_line_is_named(torn: bytes, reads: Reads, reasons: Reasons) -> None:
    assert reasons(reads(".jsonl", GOOD + torn)) == ["ok", "torn_line"]


def test_a_last_line_without_a_line_end_may_be_whole(reads: Reads) -> None:
    assert _texts(reads(".jsonl", GOOD + LAST.rstrip())) == ["one", "last"]


def test_blank_lines_windows_ends_and_a_mark(reads: Reads) -> None:
    content = b"\xef\xbb\xbf" + (b"\n" + GOOD + b" \t\n" + LAST).replace(b"\n", b"\r\n")
    items = reads(".jsonl", content)
    assert _texts(items) == ["one", "last"]
    assert not _rejected(items)


def test_an_empty_file_is_an_empty_day(reads: Reads) -> None:
    assert reads(".jsonl", b"") == []
    assert reads(".csv", b"") == []
    assert reads(".jsonl.gz", gzip.compress(b"")) == []


def test_a_line_too_long_to_hold(
    reads: Reads, reasons: Reasons, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines.read_lines, "__defaults__", (1000,))
    long = b'{"id": "b", "text": "' + b"x" * 2000 + b'"}\n'
    items = reads(".jsonl", GOOD + long + LAST)
    assert reasons(items) == ["ok", "too_long", "ok"]
    assert _rejected(items)[0].content.startswith('{"id": "b"')


@pytest.mark.parametrize(
    "content", [b'[\n{"id": "a", "text": "t"}\n]', b'[{"id": "a"}]', b'{\n  "id": "a"\n}\n']
)
def test_a_json_file_that_holds_no_lines_is_one_rejection(
    content: bytes, reads: Reads, reasons: Reasons
) -> None:
    assert reasons(reads(".json", content)) == ["not_json_lines"]


def test_another_encoding_is_one_rejection(reads: Reads, reasons: Reasons) -> None:
    assert reasons(reads(".jsonl", (GOOD * 50).decode().encode("utf-16"))) == ["not_utf8"]


# Packed files


def test_a_cut_gzip_file_delivers_what_was_whole(reads: Reads, reasons: Reasons) -> None:
    noise = random.Random(1)
    content = b"".join(
        b'{"id": %d, "text": "%032x"}\n' % (number, noise.getrandbits(128))
        for number in range(3000)
    )
    packed = gzip.compress(content)
    items = reads(".jsonl.gz", packed[: len(packed) // 2])
    assert 1400 < len(_texts(items)) < 1600
    assert set(reasons(items)[:-1]) == {"ok"}
    assert reasons(items)[-1] == "damaged_file"


@pytest.mark.parametrize(
    ("damage", "rows"),
    [
        (lambda packed: packed[:-8] + b"12345678", 2),
        (lambda packed: packed + b"rubbish", 2),
        (lambda packed: packed[:-4], 2),
        (lambda packed: b"no gzip at all", 0),
        (lambda packed: packed[:5], 0),
    ],
)
def test_damage_is_one_rejection_after_the_good_rows(
    damage: Callable[[bytes], bytes], rows: int, reads: Reads, reasons: Reasons
) -> None:
    items = reads(".jsonl.gz", damage(gzip.compress(GOOD + LAST)))
    assert reasons(items) == ["ok"] * rows + ["damaged_file"]


def test_several_packed_parts_are_one_file(reads: Reads) -> None:
    assert _texts(reads(".jsonl.gz", gzip.compress(GOOD) + gzip.compress(LAST))) == ["one", "last"]


# CSV


def test_csv(reads: Reads) -> None:
    content = 'id,text,project,extra\r\n1,"a, ""quoted""\r\ntext",p,5\r\n\r\n2,Grüße,,\r\n'
    first, second = reads(".csv", content)
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert (first.row_id, first.text, first.project) == ("1", 'a, "quoted"\ntext', "p")
    assert first.metadata == {"extra": "5"}
    assert first.location.endswith(":2")
    assert (second.text, second.project, second.metadata) == ("Grüße", "default", {"extra": ""})
    assert second.location.endswith(":5")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_header_says_the_delimiter(delimiter: str, reads: Reads) -> None:
    lines = [("id", "text"), ("1", "one"), ("2", "two")]
    content = "".join(delimiter.join(cells) + "\n" for cells in lines)
    assert _texts(reads(".csv.gz", gzip.compress(content.encode()))) == ["one", "two"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"2,caf\xe9,x", "not_utf8"),
        (b"2,x\x00y,x", "nul_byte"),
        (b"2,two", "bad_csv"),
        (b"2,two,x,y", "bad_csv"),
        (b'2,"two"x,x', "bad_csv"),
        (b"2,,x", "no_text"),
        (b",two,x", "no_id"),
        (b'2,"two,x', "bad_csv"),
    ],
)
def test_a_bad_csv_line_costs_itself_alone(
    line: bytes, reason: str, reads: Reads, reasons: Reasons
) -> None:
    items = reads(".csv", b"id,text,n\n1,one,x\n" + line + b'\n3,"three, and",x\n4,four,x\n')
    assert reasons(items) == ["ok", reason, "ok", "ok"]
    (rejected,) = _rejected(items)
    assert rejected.location.endswith(":3")
    assert rejected.content == line.decode("utf-8", "replace")
    assert _texts(items) == ["one", "three, and", "four"]


@pytest.mark.parametrize("torn", ["2,tw", '2,"tw', "2"])
def test_a_torn_last_csv_line(torn: str, reads: Reads, reasons: Reasons) -> None:
    items = reads(".csv", f"id,text,n\n1,one,x\n{torn}")
    assert reasons(items) == ["ok", "torn_line"]


def test_a_last_csv_line_without_a_line_end_may_be_whole(reads: Reads) -> None:
    assert _texts(reads(".csv", "id,text\n1,one\n2,two")) == ["one", "two"]


def test_a_long_csv_text(reads: Reads) -> None:
    text = "long words " * 40_000
    assert _texts(reads(".csv", f'id,text\n1,"{text}"\n')) == [text]


@pytest.mark.parametrize(("suffix", "content"), [(".csv", "name,text\n1,x\n"), (".csv", "\x00\n")])
def test_a_header_without_our_columns(
    suffix: str, content: str, reads: Reads, reasons: Reasons
) -> None:
    items = reads(suffix, content)
    assert reasons(items) == ["missing_column"]
    assert _rejected(items)[0].content == content.splitlines()[0]


_CELL = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=12
)


@settings(suppress_health_check=list(HealthCheck))
@given(texts=st.lists(_CELL.filter(lambda text: not text.isspace()), min_size=1, max_size=8))
def test_what_the_csv_module_writes_comes_back(texts: list[str], reads: Reads) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(["id", "text"])
    writer.writerows(enumerate(texts))
    assert _texts(reads(".csv", written.getvalue())) == texts


@settings(suppress_health_check=list(HealthCheck))
@given(content=st.lists(st.sampled_from([b"1", b",", b'"', b"\n", b"x", b"\xff"])).map(b"".join))
def test_no_bytes_break_the_csv_reader(content: bytes, reads: Reads) -> None:
    items = reads(".csv", b"id,text\n" + content + b"\nlast,row\n")
    assert all(isinstance(item, Row | Rejected) for item in items)
    if content.count(b'"') == 0:
        assert _texts(items)[-1] == "row"


# Parquet


def _parquet(path: Path, **columns: object) -> None:
    parquet.write_table(pa.table(columns), path, row_group_size=1000)


def test_parquet(folder: Folder) -> None:
    when = datetime(2025, 3, 18, 5, tzinfo=UTC)
    _parquet(
        folder.path / f"{DAY}.parquet",
        id=[1, 2],
        text=["one", None],
        project=pa.array(["p", "p"]).dictionary_encode(),
        when=[when, when],
        tags=[["a"], []],
    )
    row, rejected = folder.read("{date}.parquet")
    assert isinstance(row, Row)
    assert (row.row_id, row.text, row.project) == ("1", "one", "p")
    assert row.metadata == {"when": "2025-03-18T05:00:00+00:00", "tags": ["a"]}
    assert row.location.endswith(".parquet#1")
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.row_id) == ("no_text", "2")


def test_parquet_text_that_is_not_utf8(folder: Folder, reasons: Reasons) -> None:
    text = pa.array([b"one", b"caf\xe9", b"three"]).view(pa.string())
    _parquet(folder.path / f"{DAY}.parquet", id=[1, 2, 3], text=text)
    items = folder.read("{date}.parquet")
    assert reasons(items) == ["ok", "not_utf8", "ok"]
    assert _rejected(items)[0].location.endswith("#2")


def test_parquet_without_our_columns(folder: Folder, reasons: Reasons) -> None:
    _parquet(folder.path / f"{DAY}.parquet", id=[1], body=["x"])
    items = folder.read("{date}.parquet")
    assert reasons(items) == ["missing_column"]
    assert _rejected(items)[0].content == "id, body"


def test_damaged_parquet_delivers_what_was_whole(folder: Folder, reasons: Reasons) -> None:
    noise = random.Random(2)
    file = folder.path / f"{DAY}.parquet"
    _parquet(file, id=range(10_000), text=[f"{noise.getrandbits(128):x}" for _ in range(10_000)])
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    file.write_bytes(content)
    words = reasons(folder.read("{date}.parquet"))
    assert 3000 < words.count("ok") < 6000
    assert words[-1] == "damaged_file"
    assert words.count("damaged_file") == 1


@pytest.mark.parametrize("keep", [0, 3, 100, -1])
def test_a_cut_parquet_file(keep: int, folder: Folder, reasons: Reasons) -> None:
    file = folder.path / f"{DAY}.parquet"
    _parquet(file, id=[1], text=["x"])
    file.write_bytes(file.read_bytes()[:keep])
    assert reasons(folder.read("{date}.parquet")) == ["damaged_file"]


# By date column


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_without_a_date_in_the_path_the_column_says_the_day(suffix: str, folder: Folder) -> None:
    rows = [
        {"id": number, "text": f"t{number}", "day": f"2025-03-{17 + number % 3}"}
        for number in range(9)
    ]
    file = folder.path / f"all{suffix}"
    if suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif suffix == ".csv":
        file.write_text(
            "\n".join(["id,text,day", *(",".join(map(str, row.values())) for row in rows)])
        )
    else:
        parquet.write_table(pa.Table.from_pylist(rows), file)
    items = folder.read(f"*{suffix}", fields=SourceFields(date="day"))
    assert _texts(items) == ["t1", "t4", "t7"]
    assert isinstance(items[0], Row)
    assert items[0].metadata == {"day": "2025-03-18"}


def test_a_date_column_is_needed_then(folder: Folder, reasons: Reasons) -> None:
    folder.write("all.csv", "id,text\n1,x\n")
    file_day = datetime.fromtimestamp((folder.path / "all.csv").stat().st_mtime, tz=UTC).date()
    assert reasons(folder.read("*.csv", file_day)) == ["missing_column"]
    assert folder.read("*.csv", DAY) == []
