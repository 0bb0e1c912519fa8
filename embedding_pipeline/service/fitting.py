"""Small batches of work are taken together, as far as a window goes.

Belongs here: where a group ends. Pure. Does not belong here: waiting for the window.
"""

from collections.abc import Iterator, Sequence

from embedding_pipeline.service.work import WorkBatch


def fitting(found: WorkBatch | Sequence[WorkBatch], rows: int) -> Iterator[Sequence[WorkBatch]]:
    """Batches in groups of at most ``rows`` rows, in order; one that is larger goes alone."""
    works = [found] if isinstance(found, WorkBatch) else found
    start = size = 0
    for end, work in enumerate(works):
        if end > start and size + len(work) > rows:
            yield works[start:end]
            start, size = end, 0
        size += len(work)
    if start < len(works):
        yield works[start:]
