"""A file of texts: one a line, or one column of rows.

Belongs here: texts alone, without ids and days. Does not belong here: chunks (``files``).
"""

from collections.abc import Iterator
from datetime import date

from embedding_pipeline.errors import SourceError
from embedding_pipeline.sources.formats import row_reader
from embedding_pipeline.sources.lines import BadFile, read_lines, without_mark
from embedding_pipeline.sources.places import Found, Place
from embedding_pipeline.sources.rows import Record, text_problem


def read_texts(path: str, column: str) -> Iterator[str | None]:
    """The texts of files, in order; None for each row that has none that can be used.

    Args:
        path: an fsspec glob of ``.txt`` (a text a line), JSONL, CSV or Parquet files.
        column: which column of rows is the text.

    Raises:
        SourceError: there is no such file, it cannot be read, or is of another kind.
    """
    place = Place(path)
    files = place.find(date.min)
    if not files:
        raise SourceError(f"{path}: there is no such file")
    for file in files:
        try:
            yield from _texts(place, file, column)
        except BadFile as bad:
            raise SourceError(f"{file.path} cannot be read any further: {bad.reason}") from bad


def _texts(place: Place, file: Found, column: str) -> Iterator[str | None]:
    if file.name.lower().removesuffix(".gz").endswith(".txt"):
        yield from _lines(place, file)
        return
    reader = row_reader(file.name)
    if reader is None:
        raise SourceError(f"{file.path}: name .txt, .jsonl, .csv or .parquet files")
    for row in reader(place, file, frozenset({column})):
        yield _usable(row.values.get(column)) if isinstance(row, Record) else None


def _lines(place: Place, file: Found) -> Iterator[str | None]:
    for line in read_lines(without_mark(place.blocks(file))):
        if line.oversized:
            yield None
        elif line.data.strip():
            try:
                yield _usable(line.data.decode())
            except UnicodeDecodeError:
                yield None


def _usable(value: object) -> str | None:
    return value if isinstance(value, str) and text_problem(value) is None else None
