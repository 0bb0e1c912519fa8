"""One Parquet file of one dataset and day: read as a stream, replaced whole.

Belongs here: opening, checking the schema, streaming, and turning what Arrow and the
file system say into a DataError with a remedy. Does not belong here: where files are
(``datasets``), how one is written (``writing``).
"""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedding_pipeline.errors import DataError
from embedding_pipeline.remote import StorageError
from embedding_pipeline.vectors.storage import Storage, Writable
from embedding_pipeline.vectors.writing import PartitionWriter, refuse_nulls

BATCH_ROWS = 1024

_REMEDIES: Final = {
    errno.ENOSPC: "the disk is full; free space and run it again: what is done stays",
    errno.EDQUOT: "the quota is used up; free space and run it again: what is done stays",
    errno.EFBIG: "files may not be so large here (ulimit -f); what is done stays",
}


@dataclass(frozen=True)
class PartitionFile:
    """One day of one dataset, whether the file exists yet or not.

    Attributes:
        asset: name of the asset the file belongs to.
        day: the partition, ``YYYY-MM-DD``.
        storage: ``data_dir``.
        name: the file's path below it.
        schema: what its columns must be, on writing and on reading.
        opened: the file itself within ``held``.
    """

    asset: str
    day: str
    storage: Storage
    name: str
    schema: pa.Schema
    opened: pq.ParquetFile | None = field(default=None, repr=False, compare=False, kw_only=True)

    @property
    def location(self) -> str:
        """Where the file is, for people: a path or a URL."""
        return self.storage.location(self.name)

    @property
    def path(self) -> Path:
        """Where the file is, when ``data_dir`` is a folder of this machine."""
        return Path(self.location)

    @property
    def remedy(self) -> str:
        """What a person types to have the file made (again)."""
        return f"make it with: embedding-pipeline backfill --start {self.day} --end {self.day}"

    def exists(self) -> bool:
        """Whether the partition was ever made."""
        with self.edge():
            return self.storage.exists(self.name)

    def remove(self) -> None:
        """Remove the file, if there is one. Raises DataError."""
        with self.edge():
            self.storage.remove(self.name)

    @contextmanager
    def held(self) -> Iterator[Self]:
        """The same partition, its file opened once for all that is asked of it in the block.

        It stays the same file when another replaces it meanwhile. Raises DataError when it
        is missing or damaged.
        """
        with self._parquet() as parquet:
            yield replace(self, opened=parquet)

    @contextmanager
    def open(self) -> Iterator["OpenPartition"]:
        """The file, checked. It stays the same file when another replaces it meanwhile.

        Raises DataError when it is missing, damaged, or not what it should be.
        """
        with self._parquet() as parquet:
            self.verify(parquet)
            opened = OpenPartition(self, parquet)
            opened.verify()
            yield opened

    def iter_batches(
        self, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows in order. Raises DataError like ``open``, at any batch."""
        with self.open() as opened:
            yield from opened.iter_batches(columns, batch_rows)

    def rows(self) -> int:
        """Number of rows, from the footer alone. Raises DataError."""
        with self.open() as opened:
            return opened.rows

    def metadata(self) -> Mapping[str, str]:
        """The file's own key/value metadata, unchecked. Raises DataError."""
        with self._parquet() as parquet:
            return self.metadata_of(parquet)

    @contextmanager
    def writer(self, metadata: Mapping[str, str] | None = None) -> Iterator[PartitionWriter]:
        """Write the partition; it replaces the old one when the block ends well.

        A block that raises leaves the old file as it was. Raises DataError when a
        batch does not fit the schema or the disk does not take it.
        """
        with self._replacing() as sink, PartitionWriter(sink, self.schema, self.edge) as writer:
            writer.annotate(metadata or {})
            yield writer

    def verify(self, parquet: pq.ParquetFile) -> None:
        """Refuse a file whose columns are not those of ``schema``. Raises DataError."""
        found = parquet.schema_arrow.remove_metadata()
        if not found.equals(self.schema):
            raise DataError(
                f"{self.location} does not have the columns of {self.asset} "
                f"({_difference(found, self.schema)}); {self.remedy}"
            )

    def metadata_of(self, parquet: pq.ParquetFile) -> Mapping[str, str]:
        """``metadata`` of the file held open. Raises DataError."""
        with self.edge():
            pairs = parquet.metadata.metadata or {}
            return {key.decode(): value.decode() for key, value in pairs.items()}

    @contextmanager
    def edge(self) -> Iterator[None]:
        """Where errors of Arrow and of the file system become DataError."""
        try:
            yield
        except FileNotFoundError as error:
            raise DataError(
                f"{self.asset} has no partition {self.day} ({self.location}); {self.remedy}"
            ) from error
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(self._explain(error)) from error

    def _explain(self, error: Exception) -> str:
        if isinstance(error, StorageError):
            return f"{self.asset} {self.day}: {error}"
        if isinstance(error, OSError) and error.strerror:
            why = _REMEDIES.get(error.errno or 0, error.strerror)
            return f"{self.asset} {self.day}: {self.location} cannot be used: {why}"
        detail = str(error).partition("\n")[0][:200]
        return f"{self.asset} {self.day}: {self.location} is damaged ({detail}); {self.remedy}"

    @contextmanager
    def _parquet(self) -> Iterator[pq.ParquetFile]:
        if self.opened is not None:
            yield self.opened
            return
        # pre_buffer, on by default, would hold the whole file in memory while streaming
        with ExitStack() as closing:
            with self.edge():
                source = closing.enter_context(self.storage.open(self.name))
                parquet = closing.enter_context(
                    pq.ParquetFile(source, pre_buffer=False, page_checksum_verification=True)
                )
            yield parquet

    @contextmanager
    def _replacing(self) -> Iterator[Writable]:
        """``Storage.replacing`` with its own errors made ours, and those of the block untouched."""
        replacement = self.storage.replacing(self.name)
        with self.edge():
            sink = replacement.__enter__()
        try:
            yield sink
        except BaseException as error:
            replacement.__exit__(type(error), error, error.__traceback__)
            raise
        with self.edge():
            replacement.__exit__(None, None, None)


class OpenPartition:
    """A partition held open: several passes over it see the same rows."""

    def __init__(self, file: PartitionFile, parquet: pq.ParquetFile) -> None:
        self.file = file
        self._parquet = parquet

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._parquet.metadata.num_rows)

    def metadata(self) -> Mapping[str, str]:
        """The file's own key/value metadata. Raises DataError."""
        return self.file.metadata_of(self._parquet)

    def verify(self) -> None:
        """Refuse a file whose row groups do not add up to its rows. Raises DataError."""
        footer = self._parquet.metadata
        groups = sum(footer.row_group(n).num_rows for n in range(footer.num_row_groups))
        if groups != footer.num_rows:
            raise DataError(
                f"{self.file.location} is damaged (row counts differ); {self.file.remedy}"
            )

    def iter_batches(
        self, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Stream the rows in order, never more than a row group at a time (about 8 MiB).

        Raises DataError when the file turns out to be damaged.
        """
        for group in range(self._parquet.metadata.num_row_groups):
            yield from self._group(group, columns, batch_rows)

    def find(self, column: str, values: pa.Array, columns: Sequence[str]) -> pa.Table:
        """The rows whose ``column`` is among ``values``; others are read by key alone."""
        none = pa.Table.from_batches([], schema=_project(self.file.schema, columns))
        return pa.concat_tables([none, *self.matching(column, values, columns)])

    def matching(self, column: str, values: pa.Array, columns: Sequence[str]) -> Iterator[pa.Table]:
        """What ``find`` finds, a row group at a time. Raises DataError."""
        import pyarrow.compute as pc

        for group in range(self._parquet.metadata.num_row_groups):
            with self.file.edge():
                keys = self._parquet.read_row_group(group, [column]).column(0)
                self._expect(group, len(keys))
                mask = pc.is_in(keys, value_set=values)
                if not pc.any(mask).as_py():
                    continue
                rows = self._parquet.read_row_group(group, list(columns))
                self._expect(group, len(rows))
            yield rows.select(columns).filter(mask).replace_schema_metadata(None)

    def pick(self, rows: npt.NDArray[np.int64], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The rows with these numbers, ascending; a row group without any is not read.

        Raises DataError when the file turns out to be damaged.
        """
        start = 0
        for group in range(self._parquet.metadata.num_row_groups):
            stop = start + self._parquet.metadata.row_group(group).num_rows
            low, high = np.searchsorted(rows, (start, stop))
            if low < high:
                with self.file.edge():
                    table = self._parquet.read_row_group(group, list(columns))
                self._expect(group, table.num_rows)
                wanted = table.select(columns).take(pa.array(rows[low:high] - start))
                yield from wanted.combine_chunks().to_batches()
            start = stop

    def _group(
        self, group: int, columns: Sequence[str] | None, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        batches = self._parquet.iter_batches(
            batch_rows, row_groups=[group], columns=columns, use_threads=False
        )
        rows = 0
        while True:
            with self.file.edge():
                batch = next(batches, None)
            if batch is None:
                break
            rows += batch.num_rows
            self._check(batch)
            # Parquet keeps the file's order of columns, and gives each batch its footer
            wanted = batch if columns is None else batch.select(list(columns))
            yield wanted.replace_schema_metadata(None)
        self._expect(group, rows)

    def _check(self, batch: pa.RecordBatch) -> None:
        try:
            refuse_nulls(batch)
        except DataError as error:
            raise DataError(f"{self.file.location}: {error}; {self.file.remedy}") from None

    def _expect(self, group: int, rows: int) -> None:
        """Page headers have no checksum: a damaged one can silently end a column early."""
        promised = self._parquet.metadata.row_group(group).num_rows
        if rows != promised:
            raise DataError(
                f"{self.file.location} is damaged (a row group of {promised} rows gave {rows}); "
                f"{self.file.remedy}"
            )


def _project(schema: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([schema.field(name) for name in columns])


def _difference(found: pa.Schema, wanted: pa.Schema) -> str:
    """The first column that differs, in words."""
    for column in wanted:
        index = found.get_field_index(column.name)
        if index < 0:
            return f"{column.name} is missing"
        if found.field(index).type != column.type:
            return f"{column.name} is {found.field(index).type}, not {column.type}"
    extra = [name for name in found.names if name not in wanted.names]
    return f"{extra[0]} is one too many" if extra else "their order differs"
