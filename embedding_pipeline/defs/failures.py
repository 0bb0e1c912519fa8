"""How our errors look in Dagster, and how they are read back from a finished run.

Belongs here: an error of the core as a step failure, and a finished run as one line
for each partition that is not done. Does not belong here: deciding what to do about it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import dagster as dg

from embedding_pipeline.defs.compat import history_is_away
from embedding_pipeline.errors import (
    DataError,
    EmbeddingPipelineError,
    SourceError,
    StateInterrupted,
    StateUnreachable,
)

BLAMED: Final = "failed_partitions"
"""Metadata of a step failure: the partitions that are to blame, each with the reason."""

PARTITION_ERRORS: Final = (SourceError, DataError)
"""Errors of one partition's data: the next partition may well succeed."""

AWAY: Final = (StateUnreachable, StateInterrupted)
"""A server is being restarted. A step may begin anew then: the cache is its checkpoint."""

AWAY_RETRIES: Final = 3
AWAY_SECONDS: Final = 10


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


@contextmanager
def again_when_away(
    context: "dg.AssetExecutionContext | dg.AssetCheckExecutionContext",
) -> Iterator[None]:
    """Let a step begin anew, some seconds later and a few times, when a server left it.

    That of the state, or that of Dagster's history. Raises dagster.RetryRequested in place of
    the error, until ``AWAY_RETRIES`` are used up.
    """
    try:
        yield
    except Exception as error:
        if not _is_away(error) or context.retry_number >= AWAY_RETRIES:
            raise
        context.log.warning("%s; this step begins anew in %d s", error, AWAY_SECONDS)
        raise dg.RetryRequested(AWAY_RETRIES, AWAY_SECONDS) from error


def _is_away(error: Exception) -> bool:
    if isinstance(error, EmbeddingPipelineError):
        return isinstance(error, AWAY)
    return history_is_away(error)
