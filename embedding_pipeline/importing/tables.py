"""Files of text and vector: Parquet and JSON lines.

Belongs here: two columns out of a file, streamed. Vectors in Parquet are lists of floats,
fixed in size or not, of any precision.
"""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

import numpy as np

from embedding_pipeline.errors import SourceError
from embedding_pipeline.importing.found import (
    UNREADABLE,
    Found,
    Reader,
    Vector,
    entry,
    numbered,
    unreachable,
    vector_of,
)

_ROWS: Final = 512
_MOST_LINE_BYTES: Final = 16 << 20


def table(path: Path, text_column: str, vector_column: str) -> Reader:
    """A file of rows, by the ending of its name: ``.parquet``, ``.jsonl``, ``.jsonl.gz``.

    Raises:
        SourceError: there is no such file, or it is of another kind.
    """
    if not path.is_file():
        raise SourceError(f"{path} is not a file")
    name = path.name.lower()
    if name.endswith(".parquet"):
        return lambda: numbered(_parquet(path, text_column, vector_column))
    if name.removesuffix(".gz").endswith((".jsonl", ".ndjson")):
        return lambda: _lines(path, text_column, vector_column)
    raise SourceError(f"{path.name}: only .parquet, .jsonl and .jsonl.gz hold rows; convert it")


def _parquet(
    path: Path, text_column: str, vector_column: str
) -> Iterator[tuple[Any, Vector | None, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            _require(path, file.schema_arrow, text_column, vector_column)
            for batch in file.iter_batches(_ROWS, columns=[text_column, vector_column]):
                texts = batch.column(text_column).to_pylist()
                for text, vector in zip(texts, _rows(batch.column(vector_column)), strict=True):
                    yield text, vector, ""
    except (pa.ArrowException, OSError, UnicodeDecodeError) as exc:
        raise unreachable(str(path), exc) from exc


def _require(path: Path, schema: Any, text_column: str, vector_column: str) -> None:
    import pyarrow.types as kinds

    for name in (text_column, vector_column):
        if name not in schema.names:
            columns = ", ".join(schema.names)
            raise SourceError(f"{path.name} has no column {name!r}; it has: {columns}")
    kind = schema.field(vector_column).type
    listed = kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind)
    if not listed or not kinds.is_floating(kind.value_type):
        raise SourceError(f"{path.name}: {vector_column!r} is {kind}, not lists of floats")


def _rows(column: Any) -> Iterator[Vector | None]:
    """Each row's numbers, without a Python number in between."""
    for scalar in column:
        values = scalar.values
        whole = values is not None and not values.null_count and len(values)
        yield _narrowed(values) if whole else None


def _narrowed(values: Any) -> Vector:
    # Not around a yield: the next row may be asked for in another thread and context.
    with np.errstate(over="ignore"):
        return np.asarray(values.to_numpy(zero_copy_only=False).astype(np.float32))


def _lines(path: Path, text_column: str, vector_column: str) -> Iterator[Found]:
    try:
        with _opened(path) as file:
            position = 0
            while line := file.readline(_MOST_LINE_BYTES):
                if not line.isspace():
                    yield _line(position, line, text_column, vector_column)
                    position += 1
    except (OSError, EOFError) as exc:
        raise unreachable(str(path), exc) from exc


def _opened(path: Path) -> IO[bytes]:
    packed = path.name.lower().endswith(".gz")
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


def _line(position: int, line: bytes, text_column: str, vector_column: str) -> Found:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        return Found(position, None, None, problem=UNREADABLE)
    return entry(position, row.get(text_column), vector_of(row.get(vector_column)))
