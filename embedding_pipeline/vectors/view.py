"""A smaller ``dimensions`` is a view of the stored full vector, and costs nothing.

Belongs here: shortening. Does not belong here: deciding which dimensions to serve.
"""

import numpy as np

from embedding_pipeline.errors import DataError
from embedding_pipeline.records import Vectors


def view(vectors: Vectors, dimensions: int) -> Vectors:
    """The first ``dimensions`` components of each row, scaled back to unit length.

    This is what the API's own ``dimensions`` parameter does for models trained for
    it (text-embedding-3); norms are taken in float64. At full length the rows are
    returned as they are.

    Args:
        vectors: float32, shape ``(n, native)``.
        dimensions: 1 to ``native``.

    Returns:
        float32, shape ``(n, dimensions)``.

    Raises DataError for other ``dimensions``, and for a row whose head is zero or not
    finite: no direction is left in it, and NaN must not pass for a vector.
    """
    native = vectors.shape[1]
    if not 1 <= dimensions <= native:
        raise DataError(f"a vector of {native} cannot be viewed at {dimensions} dimensions")
    if dimensions == native:
        return vectors
    head = vectors[:, :dimensions]
    norms = np.sqrt(np.einsum("ij,ij->i", head, head, dtype=np.float64))
    unusable = np.flatnonzero(~((norms > 0) & np.isfinite(norms)))
    if unusable.size:
        raise DataError(
            f"{unusable.size} vectors (the first is row {unusable[0]}) are zero or not finite "
            f"in their first {dimensions} components and cannot be shortened"
        )
    shortened: Vectors = (head / norms[:, None]).astype(np.float32)
    return shortened
