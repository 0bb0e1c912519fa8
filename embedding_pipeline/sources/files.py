"""Chunks and documents from files, anywhere fsspec reaches.

Belongs here: which file is read how, and for which day. Does not belong here: how
a format is read (``formats``), what a good row is (``rows``).

With ``{date}`` in the path, the path says the day and only that day's files are
opened. Without it every file is read for every day, and the date column says which
rows are meant (``days`` says what happens to rows without a date); a document, which
has no columns, belongs to the day its file was last changed, but not to a day before
the pipeline's first, so that what was there from the start is not lost.
"""

from collections.abc import Iterator
from datetime import date

from embedding_pipeline.errors import ConfigurationError
from embedding_pipeline.records import Document, Rejected
from embedding_pipeline.sources.base import ChunkSource, Item
from embedding_pipeline.sources.config import SourceConfig
from embedding_pipeline.sources.days import rows_of_day
from embedding_pipeline.sources.formats import Rows, is_document, is_markdown, row_reader
from embedding_pipeline.sources.lines import MAX_LINE_BYTES, BadFile, without_mark
from embedding_pipeline.sources.marks import stamp_of
from embedding_pipeline.sources.places import Found, Place
from embedding_pipeline.sources.rows import (
    DEFAULT_PROJECT,
    Record,
    excerpt,
    text_problem,
    to_row,
)


class FilesSource(ChunkSource):
    """The files that match ``source.path``.

    Args:
        config: a source of kind ``files``.
        first_day: the first daily partition.

    Raises:
        SourceError: the path's protocol is unknown or its package is missing.
    """

    def __init__(self, config: SourceConfig, first_day: date) -> None:
        if config.path is None:
            raise ConfigurationError("source.path is not set; kind files needs an fsspec glob")
        self._fields = config.fields
        self._first_day = first_day
        self._place = Place(config.path)
        self._required = frozenset({config.fields.id, config.fields.text})
        if not self._place.dated:
            self._required |= {config.fields.date}

    def stamp(self, day: date) -> str:
        return stamp_of(self._place.listing(day))

    def read(self, day: date) -> Iterator[Item]:
        for file in self._place.find(day):
            yield from self._rows(file, day) if row_reader(file.name) else self._whole(file, day)

    def _rows(self, file: Found, day: date) -> Iterator[Item]:
        rows = self._unjudged(file)
        if not self._place.dated:
            rows = rows_of_day(rows, day, column=self._fields.date, file_day=self._file_day(file))
        for row in rows:
            yield to_row(row, self._fields) if isinstance(row, Record) else row

    def _unjudged(self, file: Found) -> Rows:
        reader = row_reader(file.name)
        assert reader is not None
        try:
            yield from reader(self._place, file, self._required)
        except BadFile as bad:
            yield _rejected(file, bad)

    def _whole(self, file: Found, day: date) -> Iterator[Item]:
        if not self._place.dated and self._file_day(file) != day:
            return
        try:
            yield self._document(file)
        except BadFile as bad:
            yield _rejected(file, bad)

    def _document(self, file: Found) -> Document:
        if not is_document(file.name):
            raise BadFile("unknown_format")
        if text_problem(file.name) is not None:
            # The name becomes the id. File systems allow names that are no UTF-8.
            raise BadFile("bad_name")
        content = b"".join(self._bounded(file))
        try:
            text = content.decode()
        except UnicodeDecodeError as exc:
            raise BadFile("not_utf8", content) from exc
        problem = text_problem(text)
        if problem is not None:
            raise BadFile(problem, content)
        return Document(
            document_id=file.name,
            text=text,
            project=DEFAULT_PROJECT,
            user=None,
            metadata={},
            location=file.path,
            markup="markdown" if is_markdown(file.name) else "text",
        )

    def _bounded(self, file: Found) -> Iterator[bytes]:
        size = 0
        for block in without_mark(self._place.blocks(file)):
            size += len(block)
            if size > MAX_LINE_BYTES:
                raise BadFile("too_long", block)
            yield block

    def _file_day(self, file: Found) -> date:
        return max(file.changed or self._first_day, self._first_day)


def _rejected(file: Found, bad: BadFile) -> Rejected:
    return Rejected(excerpt(file.path), excerpt(file.name), bad.reason, excerpt(bad.content))
