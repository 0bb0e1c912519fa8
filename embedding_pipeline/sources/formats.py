"""What files hold: JSON lines, CSV, and how each kind of file is read.

Belongs here: from a file's lines to ``Record``, each bad one alone. Does not belong here:
Parquet (``parquet``), finding and opening files (``places``), judging values (``rows``),
choosing a day (``days``).
"""

import csv
import json
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Final, TypeAlias

from embedding_pipeline.records import Rejected
from embedding_pipeline.sources.lines import BadFile, Line, read_lines, without_mark
from embedding_pipeline.sources.parquet import MAX_COLUMNS, read_parquet
from embedding_pipeline.sources.places import Found, Place
from embedding_pipeline.sources.rows import Record, excerpt

Rows: TypeAlias = Iterator[Record | Rejected]
"""A file's rows in order. The iteration may end in ``BadFile``."""

Reader: TypeAlias = Callable[[Place, Found, frozenset[str]], Rows]
"""Reads a file of rows; the names are the columns it cannot do without."""

MAX_CSV_FIELD: Final = 8 * 2**20
"""Characters of one CSV field. What is longer is a quote that was never closed."""

_MAX_HEADER: Final = 2**17
"""Characters of a CSV header; the csv module takes no longer field."""

_DELIMITERS: Final = ",;\t|"


def row_reader(name: str) -> Reader | None:
    """How to read a file of rows of that name, or None if it is none."""
    return _READERS.get(_suffix(name))


def is_document(name: str) -> bool:
    """Whether a file of that name is one document."""
    return _suffix(name) in {".txt", *_MARKDOWN}


def is_markdown(name: str) -> bool:
    """Whether a document of that name is written in Markdown."""
    return _suffix(name) in _MARKDOWN


def read_jsonl(place: Place, file: Found, required: frozenset[str]) -> Rows:
    """One JSON object a line; white-space lines are nothing."""
    del required  # every line has columns of its own
    for line in _lines(place, file):
        location = f"{file.path}:{line.number}"
        if line.oversized:
            yield Rejected(location, "", "too_long", excerpt(line.data))
        elif not line.data.isspace() and line.data:
            yield _json_row(line, location)


def read_json(place: Place, file: Found, required: frozenset[str]) -> Rows:
    """A file called .json may hold lines as well; one array or object over lines it may not."""
    for number, row in enumerate(read_jsonl(place, file, required)):
        if number == 0 and isinstance(row, Rejected):
            begin = row.content.strip()
            if begin == "{" or begin.startswith("["):
                raise BadFile("not_json_lines", begin.encode())
        yield row


def read_csv(place: Place, file: Found, required: frozenset[str]) -> Rows:
    """A header and rows; comma, semicolon, tab or bar, whichever the header uses."""
    feed = _Feed(_lines(place, file))
    header = feed.header()
    if header is None:
        return
    text = header.data.decode("utf-8", "surrogateescape")
    if len(text) > _MAX_HEADER or max(map(text.count, _DELIMITERS)) >= MAX_COLUMNS:
        raise BadFile("too_many_columns", header.data[:4096])
    delimiter = max(_DELIMITERS, key=lambda mark: len(required & set(_cells(text, mark))))
    columns = _cells(text, delimiter)
    if not required <= set(columns):
        raise BadFile("missing_column", header.data)
    yield from _csv_rows(feed, file, columns, delimiter)


_MARKDOWN: Final = frozenset({".md", ".markdown"})
_READERS: Final[dict[str, Reader]] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".parquet": read_parquet,
}


def _suffix(name: str) -> str:
    return PurePosixPath(name.lower().removesuffix(".gz")).suffix


def _lines(place: Place, file: Found) -> Iterator[Line]:
    return read_lines(without_mark(place.blocks(file)))


def _json_row(line: Line, location: str) -> Record | Rejected:
    try:
        values = json.loads(line.data.decode())
    except UnicodeDecodeError:
        reason = "not_utf8"
    except (ValueError, RecursionError):
        reason = "bad_json"
    else:
        if isinstance(values, dict) and len(values) <= MAX_COLUMNS:
            return Record(location, values, line.data)
        reason = "too_many_columns" if isinstance(values, dict) else "wrong_type"
    torn = not line.ended and reason in {"not_utf8", "bad_json"}
    return Rejected(location, "", "torn_line" if torn else reason, excerpt(line.data))


class _Feed:
    """Lines for the csv module, remembered as long as their record is not finished.

    A quote that is never closed would swallow the rows after it. When a record that
    spans lines turns out wrong, only its first line is given up: ``replay`` hands the
    others out again.
    """

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self._again: deque[Line] = deque()
        self.taken: list[Line] = []

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self.taken.append(line)
        return line.data.decode("utf-8", "surrogateescape") + ("\n" if line.ended else "")

    def header(self) -> Line | None:
        """The first line that is not empty."""
        return next((line for line in self._lines if line.data.strip()), None)

    def replay(self) -> None:
        self._again.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def _cells(text: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([text], delimiter=delimiter), [])]


def _csv_rows(feed: _Feed, file: Found, columns: list[str], delimiter: str) -> Rows:
    csv.field_size_limit(max(MAX_CSV_FIELD, csv.field_size_limit()))
    parser = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        feed.taken.clear()
        try:
            cells: list[str] | None = next(parser)
        except StopIteration:
            return
        except csv.Error:
            cells = None
        if cells != []:
            yield _csv_row(feed, file, columns, cells)


def _csv_row(
    feed: _Feed, file: Found, columns: list[str], cells: list[str] | None
) -> Record | Rejected:
    whole = cells is not None and len(cells) == len(columns)
    if not whole:
        feed.replay()
    first, last = feed.taken[0], feed.taken[-1]
    location = f"{file.path}:{first.number}"
    raw = b"\n".join(line.data for line in feed.taken)
    if cells is None or not whole:
        reason = "bad_csv" if last.ended else "torn_line"
    elif any(line.oversized for line in feed.taken):
        reason = "too_long"
    elif not _is_utf8(raw):
        reason = "not_utf8"
    else:
        return Record(location, dict(zip(columns, cells, strict=True)), raw)
    return Rejected(location, "", reason, excerpt(raw))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
