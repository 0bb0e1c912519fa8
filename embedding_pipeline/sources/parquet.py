"""Parquet files: their rows a few at a time, however much a few bytes of them stand for.

Belongs here: what a footer promises, judged before anything is read, and reading in steps
that fit in memory. Does not belong here: judging values (``rows``), opening files (``places``).

A file of a kilobyte can stand for terabytes: a dictionary holds a long value once for all of
its rows, pages are packed, runs are counted. What honest writers say in the footer (sizes,
numbers of values, which columns have a dictionary) bounds all of it but the length of a
dictionary's values; dictionaries are looked at for that, as they are: each value once.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from embedding_pipeline.records import Rejected
from embedding_pipeline.sources.lines import MAX_LINE_BYTES, BadFile
from embedding_pipeline.sources.places import (
    UNPACKED_BYTES,
    UNPACKED_TIMES,
    Found,
    Handle,
    Place,
)
from embedding_pipeline.sources.rows import Record, excerpt

MAX_COLUMNS: Final = 10_000
"""Columns of a row; more is no table of chunks, and each row would cost a million names."""

_MAX_FOOTER_BYTES: Final = 32 * 2**20

_ROWS: Final = 256
_BUFFER: Final = 2**20
"""Bytes of a column read at once; without it whole row groups are loaded."""

_AT_ONCE_BYTES: Final = MAX_LINE_BYTES
"""Bytes of dictionary values that the rows of one step may come to."""

_CHUNK_BYTES: Final = 2**28
"""A column of a row group may be that large whatever it is packed to: one page may be all of it."""

_LIST_BYTES: Final = 2**29
"""The same of the values in lists: one row may hold all of them."""

_VALUE_BYTES: Final = 64
"""What a value costs at least, as a Python object in a list; and a row."""


@dataclass(frozen=True)
class Chunk:
    """One column of a row group, as the footer has it.

    Attributes:
        name: path of the column.
        packed: its bytes in the file.
        unpacked: the same before packing, a dictionary counted once.
        values: how many, elements of lists counted one by one.
        width: bytes of a value where all are alike, else 0.
        has_dictionary: texts or bytes that are held once each.
        in_list: whether a row may have many.
    """

    name: str
    packed: int
    unpacked: int
    values: int
    width: int
    has_dictionary: bool
    in_list: bool


def read_parquet(
    place: Place, file: Found, required: frozenset[str]
) -> Iterator[Record | Rejected]:
    """The rows of a Parquet file, a few at a time. The iteration may end in ``BadFile``."""
    import pyarrow as pa

    with place.open(file) as handle:
        try:
            for number, values in enumerate(_values(handle, required), 1):
                yield _row(values, f"{file.path}#{number}")
        except (pa.ArrowException, OSError) as exc:
            raise BadFile("damaged_file", str(exc).encode()) from exc


def too_far(size: int, rows: int, chunks: Sequence[Chunk]) -> bool:
    """Whether a footer promises more than a file of that many bytes is believed to hold. Pure."""
    if rows * _VALUE_BYTES > max(UNPACKED_BYTES, UNPACKED_TIMES * size):
        return True
    return any(
        chunk.unpacked > max(_CHUNK_BYTES, UNPACKED_TIMES * chunk.packed)
        or (chunk.in_list and _is_long_list(chunk, chunk.width))
        for chunk in chunks
    )


def _is_long_list(chunk: Chunk, width: int) -> bool:
    most = max(_LIST_BYTES, UNPACKED_TIMES * chunk.packed)
    return chunk.values * (_VALUE_BYTES + width) > most


def rows_at_once(chunks: Sequence[Chunk], longest: Sequence[int]) -> int:
    """How many rows are read in one step, by the longest value of each column. Pure.

    Raises:
        BadFile: the values in a list come to more than the file is believed to hold.
    """
    width = sum(
        max(chunk.width, long)
        for chunk, long in zip(chunks, longest, strict=True)
        if not chunk.in_list
    )
    if any(
        chunk.in_list and _is_long_list(chunk, long)
        for chunk, long in zip(chunks, longest, strict=True)
    ):
        raise BadFile("unpacks_too_far")
    return max(1, min(_ROWS, _AT_ONCE_BYTES // max(1, width)))


def _values(handle: Handle, required: frozenset[str]) -> Iterator[dict[str, object] | None]:
    """The rows as Python values; None for one that holds text which is not UTF-8."""
    from pyarrow import parquet

    size = _refuse_large_footer(handle)
    table = parquet.ParquetFile(handle, pre_buffer=False, buffer_size=_BUFFER)
    names = table.schema_arrow.names
    if len(names) > MAX_COLUMNS or table.metadata.num_columns > MAX_COLUMNS:
        raise BadFile("too_many_columns")
    if not required <= set(names):
        raise BadFile("missing_column", ", ".join(names).encode())
    groups = [_chunks(table, group) for group in range(table.num_row_groups)]
    if too_far(size, table.metadata.num_rows, [chunk for group in groups for chunk in group]):
        raise BadFile("unpacks_too_far")
    most, decoded = max(UNPACKED_BYTES, UNPACKED_TIMES * size), 0
    for group, chunks in enumerate(groups):
        rows = rows_at_once(chunks, _longest(handle, table, group, chunks))
        for batch in table.iter_batches(rows, row_groups=[group], use_threads=False):
            whole = _decoded(batch)
            decoded += whole.nbytes
            if decoded > most:
                raise BadFile("unpacks_too_far")
            yield from _python_rows(whole)


def _refuse_large_footer(handle: Handle) -> int:
    """Its last bytes say how long a footer is, and reading it takes many times that memory.

    Returns the size of the file.
    """
    size = handle.seek(0, os.SEEK_END)
    handle.seek(max(0, size - 8))
    length = int.from_bytes(handle.read(4), "little")
    handle.seek(0)
    if _MAX_FOOTER_BYTES < length < size:
        raise BadFile("too_many_columns")
    return size


_WIDTHS: Final = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT64": 8, "DOUBLE": 8, "INT96": 12}


def _chunks(table: Any, group: int) -> list[Chunk]:
    said, schema = table.metadata.row_group(group), table.schema
    return [_chunk(said.column(i), schema.column(i)) for i in range(said.num_columns)]


def _chunk(said: Any, column: Any) -> Chunk:
    kind = said.physical_type
    return Chunk(
        name=said.path_in_schema,
        packed=said.total_compressed_size,
        unpacked=said.total_uncompressed_size,
        values=said.num_values,
        width=column.length if kind == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS.get(kind, 0),
        has_dictionary=kind == "BYTE_ARRAY" and said.has_dictionary_page,
        in_list=column.max_repetition_level > 0,
    )


def _longest(handle: Handle, table: Any, group: int, chunks: Sequence[Chunk]) -> list[int]:
    """The longest value in each column's dictionary; 0 where it has none."""
    from pyarrow import parquet

    held = [chunk.name for chunk in chunks if chunk.has_dictionary]
    if not held or sum(chunk.unpacked for chunk in chunks) * _ROWS <= _AT_ONCE_BYTES:
        return [chunk.unpacked * chunk.has_dictionary for chunk in chunks]
    looking = parquet.ParquetFile(
        handle,
        metadata=table.metadata,
        read_dictionary=held,
        pre_buffer=False,
        buffer_size=_BUFFER,
    )
    found: dict[str, int] = {}
    for name in held:
        batches = looking.iter_batches(1, row_groups=[group], columns=[name], use_threads=False)
        for batch in batches:
            found[name] = max(map(_longest_in, batch.columns), default=0)
            break
    return [found.get(chunk.name, 0) for chunk in chunks]


def _longest_in(values: Any) -> int:
    """The longest value of an array's dictionary, wherever in lists and structs it is."""
    import pyarrow as pa
    from pyarrow import compute

    if isinstance(values, pa.DictionaryArray):
        return int(compute.max(compute.binary_length(values.dictionary)).as_py() or 0)
    if isinstance(values, pa.StructArray):
        parts = [values.field(i) for i in range(values.type.num_fields)]
    elif isinstance(values, pa.MapArray):
        parts = [values.keys, values.items]
    else:
        inner = getattr(values, "values", None)
        parts = [inner] if isinstance(inner, pa.Array) else []
    return max(map(_longest_in, parts), default=0)


def _decoded(batch: Any) -> Any:
    """The same rows with every value where it belongs, as their writer may not have had them."""
    import pyarrow as pa

    if not any(isinstance(column, pa.DictionaryArray) for column in batch.columns):
        return batch
    columns = [
        column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _python_rows(batch: Any) -> Iterator[dict[str, object] | None]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            try:
                yield from batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError:
                yield None


def _row(values: dict[str, object] | None, location: str) -> Record | Rejected:
    if values is None:
        return Rejected(location, "", "not_utf8", "")
    for value in values.values():
        if isinstance(value, str | bytes) and len(value) > MAX_LINE_BYTES:
            return Rejected(location, "", "too_long", excerpt(value[:4096]))
    return Record(location, values)
