"""Matrices as Arrow columns and back, without a copy.

Belongs here: the one place that knows how a float32 matrix sits in an Arrow
column. Does not belong here: files, spaces, or what a vector means.
"""

import numpy as np
import pyarrow as pa

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import Vectors, embeddings_schema
from embedding_pipeline.vectors.view import view


def vector_column(vectors: Vectors) -> pa.FixedSizeListArray:
    """The matrix ``(n, dimensions)`` as one column of ``n`` fixed-size lists.

    The column shares the matrix's memory when it is C-contiguous float32 (anything
    else is copied first): do not change the matrix while the column is in use.
    Raises DataError when ``vectors`` is not a matrix with at least one column.
    """
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise DataError(f"vectors must be a matrix (n, dimensions), not {vectors.shape}")
    flat = np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1)
    kind = embeddings_schema(vectors.shape[1]).field("vector").type
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=kind)


def matrix_of(column: pa.FixedSizeListArray) -> Vectors:
    """The inverse of ``vector_column``: a read-only view ``(n, dimensions)``, float32.

    Raises DataError when a row or a component is null.
    """
    values = column.flatten()
    if column.null_count or values.null_count:
        raise DataError("the vector column holds nulls; the partition must be made again")
    flat: Vectors = values.to_numpy(zero_copy_only=True)
    return flat.reshape(len(column), column.type.list_size)


def embeddings_batch(chunks: pa.RecordBatch, vectors: Vectors) -> pa.RecordBatch:
    """Rows of ``embeddings``: row ``i`` is chunk ``i`` of ``chunks`` with vector ``i``.

    Args:
        chunks: has at least ``chunk_id``, ``document_id``, ``project``, ``content_hash``.
        vectors: float32, shape ``(chunks.num_rows, dimensions)``.

    Raises DataError when the number of rows differs.
    """
    if len(vectors) != chunks.num_rows:
        raise DataError(f"{chunks.num_rows} chunks cannot take {len(vectors)} vectors")
    schema = embeddings_schema(vectors.shape[1])
    names = [name for name in schema.names if name != "vector"]
    return pa.RecordBatch.from_arrays(
        [*(chunks.column(name) for name in names), vector_column(vectors)], schema=schema
    )


def with_view(batch: pa.RecordBatch, dimensions: int) -> pa.RecordBatch:
    """``batch`` with its vectors, if it has any, shortened to ``dimensions``.

    Raises DataError where they cannot be (see ``view``).
    """
    place = batch.schema.get_field_index("vector")
    if place < 0 or batch.schema.field(place).type.list_size == dimensions:
        return batch
    short = vector_column(view(matrix_of(batch.column(place)), dimensions))
    return batch.set_column(place, embeddings_schema(dimensions).field("vector"), short)
