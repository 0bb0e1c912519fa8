"""Files made to exhaust a machine are kept aside, within bounded memory and few seconds.

Each is read by a process of its own that may have 1 GiB more than it starts with, and is
ended by the system when it takes more than 100 seconds of the processor.
"""

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_pipeline.records import Rejected, Row
from embedding_pipeline.sources import parquet, places
from embedding_pipeline.sources.lines import MAX_LINE_BYTES, BadFile
from embedding_pipeline.sources.parquet import Chunk, rows_at_once
from embedding_pipeline_tests.sources.conftest import DAY, Folder, Reads

GOOD = b'{"id": "a", "text": "one"}\n'
READER = """
import json, resource, sys
from datetime import date
import pyarrow.parquet
from embedding_pipeline.records import Rejected
from embedding_pipeline.sources.config import SourceConfig
from embedding_pipeline.sources.files import FilesSource

def grown():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmSize"))
    return int(line.split()[1]) << 10

source = FilesSource(SourceConfig(kind="files", path=sys.argv[1]), date(2025, 3, 1))
resource.setrlimit(resource.RLIMIT_AS, (grown() + (1 << 30),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (100, 100))
items = source.read(date.fromisoformat(sys.argv[2]))
print(json.dumps([item.reason if isinstance(item, Rejected) else "ok" for item in items]))
"""


def long_line(path: Path) -> None:
    """Two gigabytes without a line end, between two good lines; the disk holds a few bytes."""
    with path.open("wb") as file:
        file.write(GOOD)
        file.seek(2 << 30)
        file.write(b"\n" + GOOD.replace(b'"a"', b'"b"'))


def packed_line(path: Path) -> None:
    """A gigabyte of nothing in a megabyte, many times: gzip files may be joined."""
    member = gzip.compress(bytes(64 << 20), 9)
    path.write_bytes(gzip.compress(GOOD) + member * 20)


def many_columns_csv(path: Path) -> None:
    names = ",".join(f"c{number}" for number in range(200_000))
    path.write_text(f"id,text,{names}\n" + "x," * 200_001 + "x\n")


def many_columns_json(path: Path) -> None:
    row = {"id": "x", "text": "x", **{f"c{number}": number for number in range(200_000)}}
    path.write_bytes(GOOD + json.dumps(row).encode() + b"\n")


def many_columns_parquet(path: Path) -> None:
    names = ["id", "text", *(f"c{number}" for number in range(12_000))]
    pq.write_table(pa.table({name: ["x"] for name in names}), path)


def repeated_value(path: Path) -> None:
    """Sixteen megabytes, held once, in each of two hundred rows: three gigabytes in a few KB."""
    rows = 200
    text = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int8()), ["x" * (16 << 20)])
    table = pa.table({"id": [str(row) for row in range(rows)], "text": text})
    pq.write_table(table, path, compression="zstd", store_schema=False)


def repeated_in_a_list(path: Path) -> None:
    """A megabyte, held once, a million times in one row."""
    size = 1_000_000
    held = pa.DictionaryArray.from_arrays(pa.array(bytes(size), pa.uint8()), ["x" * (1 << 20)])
    tags = pa.ListArray.from_arrays(pa.array([0, size], pa.int32()), held)
    table = pa.table({"id": ["a"], "text": ["t"], "tags": tags})
    pq.write_table(table, path, compression="zstd", store_schema=False)


def packed_value(path: Path) -> None:
    """A value of three hundred megabytes in a page of 30 KB."""
    text = pa.array(["x" * (300 << 20)], pa.large_string())
    table = pa.table({"id": ["a"], "text": text})
    options = {"use_dictionary": False, "write_statistics": False, "store_schema": False}
    pq.write_table(table, path, compression="zstd", **options)


def empty_rows(path: Path) -> None:
    """Rows with nothing in them cost a file next to nothing."""
    rows = 20_000_000
    table = pa.table({"id": pa.nulls(rows, pa.int32()), "text": pa.nulls(rows, pa.int32())})
    pq.write_table(table, path, row_group_size=rows)


def long_footer(path: Path) -> None:
    """What would be the footer of a million columns."""
    length = 200 << 20
    with path.open("wb") as file:
        file.write(b"PAR1")
        file.seek(length + 4)
        file.write(length.to_bytes(4, "little") + b"PAR1")


def deep_json(path: Path) -> None:
    deep = b'{"id": "b", "text": "t", "x": ' + b"[" * 10_000_000 + b"\n"
    path.write_bytes(GOOD + deep)


def large_document(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2 << 30)


BOMBS: list[tuple[str, Callable[[Path], None], list[str]]] = [
    (".jsonl", long_line, ["ok", "too_long", "ok"]),
    (".jsonl.gz", packed_line, ["ok", "unpacks_too_far"]),
    (".csv", long_line, ["missing_column"]),
    (".csv", many_columns_csv, ["too_many_columns"]),
    (".jsonl", many_columns_json, ["ok", "too_many_columns"]),
    (".parquet", many_columns_parquet, ["too_many_columns"]),
    (".parquet", repeated_value, ["ok"] * 63 + ["unpacks_too_far"]),
    (".parquet", repeated_in_a_list, ["unpacks_too_far"]),
    (".parquet", packed_value, ["unpacks_too_far"]),
    (".parquet", empty_rows, ["unpacks_too_far"]),
    (".parquet", long_footer, ["too_many_columns"]),
    (".jsonl", deep_json, ["ok", "bad_json"]),
    (".md", large_document, ["too_long"]),
    (".pdf", large_document, ["unknown_format"]),
]


@pytest.mark.parametrize(
    ("suffix", "bomb", "reasons"),
    BOMBS,
    ids=[f"{bomb.__name__}{suffix}" for suffix, bomb, _ in BOMBS],
)
def test_a_bomb_is_kept_aside(
    folder: Folder, suffix: str, bomb: Callable[[Path], None], reasons: list[str]
) -> None:
    bomb(folder.path / f"{DAY}{suffix}")
    pattern = str(folder.path / f"{{date}}{suffix}")
    command = [sys.executable, "-c", READER, pattern, str(DAY)]
    # Arrow's own allocator would reserve a gigabyte of addresses before it uses any.
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == reasons


chunks = st.builds(
    Chunk,
    name=st.just("c"),
    packed=st.integers(0, 1 << 40),
    unpacked=st.integers(0, 1 << 45),
    values=st.integers(0, 1 << 40),
    width=st.integers(0, 1 << 30),
    has_dictionary=st.booleans(),
    in_list=st.booleans(),
)


@given(st.lists(st.tuples(chunks, st.integers(0, 1 << 31)), max_size=5))
def test_a_step_of_rows_fits_in_memory_whatever_a_dictionary_holds(
    columns: list[tuple[Chunk, int]],
) -> None:
    held, longest = [one for one, _ in columns], [long for _, long in columns]
    try:
        rows = rows_at_once(held, longest)
    except BadFile:
        assert any(one.in_list for one in held)
        return
    flat = sum(max(one.width, long) for one, long in columns if not one.in_list)
    assert 1 <= rows <= 256
    assert rows == 1 or rows * flat <= MAX_LINE_BYTES


def test_a_text_longer_than_a_line_may_be_is_kept_aside(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MAX_LINE_BYTES", 1000)
    file = io.BytesIO()
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["short", "x" * 1001]}), file)
    good, bad = reads(".parquet", file.getvalue())
    assert isinstance(bad, Rejected)
    assert (bad.reason, isinstance(good, Rejected)) == ("too_long", False)


@pytest.mark.parametrize("nested", [False, True])
def test_values_held_once_come_out_as_often_as_they_stand_there(
    reads: Reads, monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    monkeypatch.setattr(parquet, "_AT_ONCE_BYTES", 300)
    texts = ["one " * 20, "two"] * 20
    held = pa.array(texts).dictionary_encode()
    tags = pa.array([[{"a": text}] for text in texts])
    table = pa.table({"id": [str(n) for n in range(40)], "text": held, "tags": tags})
    file = io.BytesIO()
    pq.write_table(table if nested else table.drop(["tags"]), file, row_group_size=15)
    rows = reads(".parquet", file.getvalue())
    assert [row.text for row in rows if isinstance(row, Row)] == texts


def test_honest_files_may_be_packed_well(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "UNPACKED_BYTES", 1000)
    packed = io.BytesIO()
    rows = [{"id": str(n), "text": f"one of many alike, number {n}"} for n in range(500)]
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    assert len(reads(".jsonl.gz", packed.getvalue())) == len(rows)
