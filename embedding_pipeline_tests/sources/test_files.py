"""Which files belong to a day, documents, and paths that cannot be read."""

import functools
import gzip
import http.server
import io
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import parquet

from embedding_pipeline.errors import ConfigurationError, SourceError
from embedding_pipeline.records import Document, Rejected, Row
from embedding_pipeline.sources.base import Item
from embedding_pipeline.sources.config import SourceConfig
from embedding_pipeline.sources.files import FilesSource
from embedding_pipeline.sources.opening import open_source
from embedding_pipeline.sources.unique import UniqueIds
from embedding_pipeline_tests.sources.conftest import DAY, FIRST_DAY, Folder

Reasons = Callable[[list[Item]], list[str]]

LINE = '{{"id": "{0}", "text": "text {0}"}}\n'


def _source(path: str) -> FilesSource:
    return FilesSource(SourceConfig(kind="files", path=path), FIRST_DAY)


def _ids(items: list[Item]) -> list[str]:
    return [
        item.row_id if isinstance(item, Row) else item.document_id
        for item in items
        if not isinstance(item, Rejected)
    ]


def test_a_day_reads_its_own_files_in_the_order_of_their_names(folder: Folder) -> None:
    for name in ("b", "a"):
        folder.write(f"{DAY}/{name}.jsonl", LINE.format(name))
        folder.write(f"2025-03-19/{name}.jsonl", LINE.format(f"later {name}"))
    assert _ids(folder.read("{date}/*.jsonl")) == ["a", "b"]
    assert _ids(folder.read("{date}/*.jsonl", DAY + timedelta(1))) == ["later a", "later b"]


def test_the_date_may_stand_anywhere_and_more_than_once(folder: Folder) -> None:
    folder.write(f"x/day={DAY}/part-{DAY}.jsonl", LINE.format("a"))
    assert _ids(folder.read("*/day={date}/part-{date}.jsonl")) == ["a"]


def test_a_day_without_files_is_empty(folder: Folder) -> None:
    folder.write("2025-03-19.jsonl", LINE.format("a"))
    assert folder.read("{date}.jsonl") == []
    assert folder.read("{date}/*.jsonl") == []


def test_reading_streams(folder: Folder) -> None:
    folder.write(f"{DAY}-a.jsonl", LINE.format("a") * 3)
    folder.write(f"{DAY}-b.jsonl", LINE.format("b"))
    items = _source(f"{folder.path}/{{date}}-*.jsonl").read(DAY)
    assert _ids([next(items)]) == ["a"]
    (folder.path / f"{DAY}-b.jsonl").unlink()
    with pytest.raises(SourceError, match=f"{DAY}-b.jsonl is not there"):
        list(items)


# Documents


def test_documents(folder: Folder) -> None:
    folder.write(f"{DAY}/guide/intro.md", b"\xef\xbb\xbf# Intro\r\n\r\nText.")
    folder.write(f"{DAY}/notes.txt.gz", gzip.compress(b"Notes."))
    assert folder.read("{date}/**") == [
        Document(
            f"{DAY}/guide/intro.md", "# Intro\r\n\r\nText.", "default", None, {},
            f"{folder.path}/{DAY}/guide/intro.md", "markdown",
        ),
        Document(
            f"{DAY}/notes.txt.gz", "Notes.", "default", None, {},
            f"{folder.path}/{DAY}/notes.txt.gz", "text",
        ),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"", "no_text"),
        ("a.md", b" \n\t ", "no_text"),
        ("a.txt", b"caf\xe9", "not_utf8"),
        ("a.txt", "text".encode("utf-16"), "not_utf8"),
        ("a.txt", b"a\x00b", "nul_byte"),
        ("a.txt.gz", gzip.compress(b"text" * 1000)[:-9], "damaged_file"),
        ("a.pdf", b"%PDF-1.7", "unknown_format"),
        ("a", b"text", "unknown_format"),
    ],
    ids=range(8),
)
def test_a_bad_document_costs_itself_alone(
    name: str, content: bytes, reason: str, folder: Folder, reasons: Reasons
) -> None:
    folder.write(f"{DAY}/{name}", content)
    folder.write(f"{DAY}/good.txt", "good")
    items = folder.read("{date}/*")
    assert reasons(items) == [reason, "ok"]
    assert isinstance(items[0], Rejected)
    assert items[0].row_id == f"{DAY}/{name}"


@pytest.mark.skipif(sys.platform == "darwin", reason="this file system takes UTF-8 names only")
def test_a_document_whose_name_is_no_utf8(folder: Folder, reasons: Reasons) -> None:
    folder.write(f"{DAY}/caf\udce9.txt", "text")
    items = folder.read("{date}/*")
    assert reasons(items) == ["bad_name"]
    assert isinstance(items[0], Rejected)
    assert items[0].row_id == f"{DAY}/caf?.txt"
    assert items[0].location.encode()


def test_a_document_too_long_to_hold(
    folder: Folder, reasons: Reasons, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embedding_pipeline.sources.files.MAX_LINE_BYTES", 100)
    folder.write(f"{DAY}.txt", "x" * 101)
    assert reasons(folder.read("{date}.txt")) == ["too_long"]


def _changed(file: Path, day: date) -> None:
    instant = datetime(day.year, day.month, day.day, 12, tzinfo=UTC).timestamp()
    os.utime(file, (instant, instant))


def test_without_a_date_a_document_belongs_to_the_day_it_was_changed(folder: Folder) -> None:
    _changed(folder.write("new.md", "new"), DAY)
    _changed(folder.write("old.md", "old"), FIRST_DAY - timedelta(1000))
    assert _ids(folder.read("*.md", DAY)) == ["new.md"]
    assert _ids(folder.read("*.md", FIRST_DAY)) == ["old.md"]
    assert folder.read("*.md", DAY + timedelta(1)) == []


def test_a_file_without_any_date_is_reported_once(folder: Folder, reasons: Reasons) -> None:
    _changed(folder.write("x.jsonl", '{"id": 1, "text": "t"}\nrubbish\n'), DAY)
    assert reasons(folder.read("*.jsonl", DAY)) == ["bad_date", "bad_json"]
    for day in (FIRST_DAY, DAY - timedelta(1), DAY + timedelta(1)):
        assert folder.read("*.jsonl", day) == []


# Paths that cannot be read


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/no/such/folder/{date}.jsonl", "create the folder"),
        ("/no/such/folder/*.jsonl", "create the folder"),
        ("nope://bucket/{date}", "source.path: nope://.* cannot be reached .*; check the address"),
        ("hdfs://host/{date}.jsonl", "needs a package|cannot be reached"),
    ],
)
def test_a_path_that_cannot_be_read_says_what_to_do(path: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        list(_source(path).read(DAY))
    assert path.split("{", maxsplit=1)[0].rstrip("/*.jsonl") in str(caught.value)


def test_a_pattern_without_a_date_that_matches_nothing(folder: Folder) -> None:
    with pytest.raises(SourceError, match=r"matches no file.*\{date\}"):
        folder.read("*.jsonl")


def test_a_folder_is_no_file(folder: Folder) -> None:
    folder.write("sub/a.jsonl", LINE.format("a"))
    with pytest.raises(SourceError, match=r"is a folder; .*sub/\*\.jsonl"):
        folder.read("sub")


@contextmanager
def _nobody(file: Path) -> Iterator[None]:
    """Without the right to read ``file``: as another user if we are root."""
    mode = file.stat().st_mode
    root = os.geteuid() == 0
    if root:
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("in this container, root can be nobody else")
        os.seteuid(0)
    file.chmod(0)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        file.chmod(mode)


@pytest.mark.parametrize("closed", [f"sub/{DAY}.jsonl", "sub", ""])
@pytest.mark.parametrize("pattern", ["sub/{date}.jsonl", "*/{date}*.jsonl", "**/{date}.jsonl"])
def test_what_may_not_be_read_is_no_empty_day(closed: str, pattern: str) -> None:
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        folder = Folder(Path(path))
        folder.write(f"sub/{DAY}.jsonl", LINE.format("a"))
        assert _ids(folder.read(pattern)) == ["a"]
        with _nobody(folder.path / closed), pytest.raises(SourceError, match="may not be read"):
            folder.read(pattern)


def test_a_missing_path_is_refused_early() -> None:
    with pytest.raises(ConfigurationError, match="path"):
        FilesSource(SourceConfig(kind="demo"), FIRST_DAY)


class FlakyStore(MemoryFileSystem):  # type: ignore[misc]
    """An object store whose connection breaks while a file is read."""

    protocol = "flaky"
    store: ClassVar[dict[str, object]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(super()._strip_protocol(path.replace("flaky://", "memory://")))

    def _open(self, path: str, mode: str = "rb", **kwargs: object) -> object:
        handle = super()._open(path, mode, **kwargs)
        if mode == "rb":
            handle.read = lambda size=-1: self._broken(handle, size)
        return handle

    @staticmethod
    def _broken(handle: io.BytesIO, size: int) -> bytes:
        if handle.tell() >= 50_000:
            raise TimeoutError("the store is gone")
        return io.BytesIO.read(handle, min(size, 50_000) if size > 0 else 50_000)


def _as_parquet() -> bytes:
    file = io.BytesIO()
    table = pa.table({"id": range(5000), "text": [os.urandom(20).hex() for _ in range(5000)]})
    parquet.write_table(table, file, row_group_size=500)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("jsonl", b"".join(b'{"id": %d, "text": "t"}\n' % number for number in range(20_000))),
        ("jsonl.gz", gzip.compress(os.urandom(200_000).hex().encode())),
        ("txt", b"text" * 50_000),
        ("parquet", _as_parquet()),
    ],
    ids=["lines", "packed", "document", "parquet"],
)
def test_a_broken_connection_is_no_damaged_file(name: str, content: bytes) -> None:
    """Taken for damage, it would end a partition early, and green."""
    fsspec.register_implementation("flaky", FlakyStore, clobber=True)
    store = fsspec.filesystem("flaky")
    store.pipe(f"/shelf/{DAY}.{name}", content)
    with pytest.raises(SourceError, match="TimeoutError: the store is gone"):
        list(_source(f"flaky://shelf/{{date}}.{name}").read(DAY))


# Other file systems


def test_any_file_system_of_fsspec(reasons: Reasons) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe(f"/bucket-of-tests/{DAY}/a.jsonl.gz", gzip.compress(LINE.format("a").encode()))
    memory.pipe(f"/bucket-of-tests/{DAY}/b.txt", b"text")
    try:
        items = list(_source("memory://bucket-of-tests/{date}/*").read(DAY))
        assert _ids(items) == ["a", f"{DAY}/b.txt"]
        assert list(_source("memory://bucket-of-tests/{date}/*").read(FIRST_DAY)) == []
    finally:
        memory.rm("/bucket-of-tests", recursive=True)


@pytest.fixture
def web(folder: Folder) -> Iterator[str]:
    """The folder, served over HTTP on loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    handler = functools.partial(Quiet, directory=str(folder.path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_over_http(folder: Folder, web: str) -> None:
    folder.write(f"{DAY}.jsonl.gz", gzip.compress(LINE.format("a").encode()))
    source = _source(f"{web}/{{date}}.jsonl.gz")
    assert _ids(list(source.read(DAY))) == ["a"]
    assert list(source.read(FIRST_DAY)) == []


# From settings


def test_opening_a_source(folder: Folder) -> None:
    folder.write(f"{DAY}.jsonl", LINE.format("a") * 2)
    config = SourceConfig(kind="files", path=f"{folder.path}/{{date}}.jsonl")
    first, second = open_source(config, FIRST_DAY).read(DAY)
    assert isinstance(first, Row)
    assert isinstance(second, Rejected)
    assert second.reason == "duplicate_id"
    assert isinstance(open_source(SourceConfig(), FIRST_DAY), UniqueIds)
