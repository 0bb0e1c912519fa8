"""How our errors look in Dagster, and how they are read back from a finished run.

Belongs here: an error of the core as a step failure, and a finished run as one line
for each partition that is not done. Does not belong here: deciding what to do about it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import dagster as dg

from embedding_pipeline.errors import DataError, EmbeddingPipelineError, SourceError

BLAMED: Final = "failed_partitions"
"""Metadata of a step failure: the partitions that are to blame, each with the reason."""

PARTITION_ERRORS: Final = (SourceError, DataError)
"""Errors of one partition's data: the next partition may well succeed."""


def blaming(failed: Mapping[str, EmbeddingPipelineError]) -> dg.Failure:
    """A step failure that names the partitions it is about."""
    reasons = {partition: str(error) for partition, error in failed.items()}
    return dg.Failure(
        description="\n".join(f"{partition}: {reason}" for partition, reason in reasons.items()),
        metadata={BLAMED: dg.MetadataValue.json(reasons)},
        allow_retries=False,
    )


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn an error of ours into a step failure that says what its message says."""
    try:
        yield
    except EmbeddingPipelineError as error:
        raise dg.Failure(
            description=str(error),
            metadata={"error": type(error).__name__},
            allow_retries=False,
        ) from error
