"""Files made to exhaust a machine are kept aside, within bounded memory and few seconds.

Each is read by a process of its own that may have 1 GiB more than it starts with, and is
ended by the system when it takes more than 100 seconds of the processor.
"""

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_pipeline.sources import places
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
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == reasons


def test_honest_files_may_be_packed_well(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "UNPACKED_BYTES", 1000)
    packed = io.BytesIO()
    rows = [{"id": str(n), "text": f"one of many alike, number {n}"} for n in range(500)]
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    assert len(reads(".jsonl.gz", packed.getvalue())) == len(rows)
