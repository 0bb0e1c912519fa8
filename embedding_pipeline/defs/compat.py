"""What we take from Dagster beyond its documented surface, in one place.

Belongs here: every private import, every use of a preview feature, and the reason
for it. Each has a test that fails loudly when an upgrade takes it away. Does not
belong here: anything Dagster documents.
"""

import inspect
import os
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as Target,
)
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import RunLauncher
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    AUTO_RETRY_RUN_ID_TAG,
    BACKFILL_ID_TAG,
    MAX_RETRIES_TAG,
    PARTITION_NAME_TAG,
    WILL_RETRY_TAG,
)

from embedding_pipeline.remote import comes_from

WILL_RETRY: Final = WILL_RETRY_TAG
"""On a failed run: whether Dagster is to repeat it."""

MAX_RETRIES: Final = MAX_RETRIES_TAG
"""On a run: how often it may be repeated, in place of the instance's ``run_retries``."""

__all__ = [
    "Evaluations",
    "Result",
    "Results",
    "Target",
    "check_output",
    "days_of_run",
    "declaring",
    "instance_ref",
    "range_tags",
]

if TYPE_CHECKING:
    Result: TypeAlias = dg.MaterializeResult[None]
    Results: TypeAlias = AsyncIterator[dg.MaterializeResult[None]]
    Evaluations: TypeAlias = AsyncIterator[dg.AssetCheckEvaluation | dg.Output[None]]
else:
    # Dagster reads return annotations: it does not know the parameter of MaterializeResult,
    # and for several outputs wants a tuple, unless the function says nothing.
    Result = dg.MaterializeResult
    Results = Evaluations = inspect.Parameter.empty

BACKFILL_RUN_TAG: Final = BACKFILL_ID_TAG
"""On every run of a backfill of Dagster's own, retries included; its value is the id."""


@contextmanager
def declaring() -> Iterator[None]:
    """Around definitions that use ``backfill_policy`` and partitioned checks.

    Both are marked beta or preview in 1.13 and would warn on every import.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        yield


def range_tags(first: str, last: str) -> dict[str, str]:
    """Run tags that make one run cover the partitions ``first`` to ``last``."""
    return {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}


def days_of_run(tags: Mapping[str, str]) -> tuple[str, str]:
    """The first and the last partition of a run; ("1", "0") where it has none."""
    if PARTITION_NAME_TAG in tags:
        return tags[PARTITION_NAME_TAG], tags[PARTITION_NAME_TAG]
    first = tags.get(ASSET_PARTITION_RANGE_START_TAG, "1")
    return first, tags.get(ASSET_PARTITION_RANGE_END_TAG, "0")


def waits_for_retry(run: dg.DagsterRun) -> bool:
    """Whether a failed run is to be repeated, and the repetition is not there yet."""
    marked = run.tags.get(WILL_RETRY_TAG) == "true"
    return marked and AUTO_RETRY_RUN_ID_TAG not in run.tags


def backfill_of(run: dg.DagsterRun) -> str | None:
    """Id of the backfill a run belongs to."""
    return run.tags.get(BACKFILL_ID_TAG)


def check_output(spec: dg.AssetCheckSpec) -> "dg.Output[None]":
    """The output by which the steps downstream of a check know that it is done.

    ``AssetCheckResult`` would bring it along, but has no ``partition``: in a run over
    a range it leaves one evaluation without partition, and the status of every
    partition stays "planned" for good. So the checks yield evaluations, and this.
    """
    return dg.Output(None, output_name=spec.get_python_identifier())


def instance_ref(home: Path, overrides: Mapping[str, object]) -> InstanceRef:
    """The instance that ``home/dagster.yaml`` describes, with some of it replaced."""
    return InstanceRef.from_dir(str(home), overrides=dict(overrides))


def configured_launcher(folder: Path | None = None) -> RunLauncher | None:
    """The run launcher of the instance in a folder; nothing else of it is opened.

    Args:
        folder: of ``dagster.yaml``; None: what ``DAGSTER_HOME`` names.
    """
    home = str(folder or os.environ.get("DAGSTER_HOME", ""))
    return InstanceRef.from_dir(home).run_launcher if home else None


def why_unreadable(error: Exception) -> str | None:
    """What is wrong with a ``dagster.yaml``, in a line; None for errors of another kind.

    Dagster says so by errors of three families, one of which lists what it found.
    """
    from dagster._check import CheckError
    from yaml import YAMLError

    if not isinstance(error, (dg.DagsterError, CheckError, YAMLError, ImportError)):
        return None
    listed = getattr(error, "errors", None)
    return " ".join((listed[0].message if listed else str(error)).split())[:300]


def history_is_away(error: BaseException) -> bool:
    """Whether the database of Dagster's history did not answer, which may pass.

    Dagster lets SQLAlchemy's errors through, or says because of one that it has tried too often;
    it documents neither. Not for errors of ours, which may come from another database.
    """
    from sqlalchemy.exc import InterfaceError, OperationalError

    return comes_from(error, (OperationalError, InterfaceError))
