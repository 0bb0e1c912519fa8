"""Which Dagster instance our own commands write to: the one the UI shows.

Belongs here: finding ``dagster.yaml`` and the folder for what Dagster keeps. Does not
belong here: running anything.

In this order: ``DAGSTER_HOME`` if it is set; the working directory if it holds a
``dagster.yaml`` (the project's own, which keeps everything below
``.embedding_pipeline/dagster``); else a plain instance below ``data_dir``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dagster as dg
from sqlalchemy.exc import DBAPIError

from embedding_pipeline.defs.compat import instance_ref
from embedding_pipeline.errors import ConfigurationError, StateError

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings

CONFIG_FILE: Final = "dagster.yaml"

# Telemetry: nothing is reported from here, whatever the instance's own default. Compute logs:
# Dagster would copy our standard output into files by way of child processes; a progress bar
# does not survive that, and everything worth keeping is in the event log.
_OVERRIDES: Final[dict[str, object]] = {
    "telemetry": {"enabled": False},
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    },
}

_STORAGE: Final = {"module": "embedding_pipeline.defs.event_log", "class": "BatchedSqliteStorage"}


def dagster_home(settings: "Settings") -> Path:
    """The folder that says, or is, where Dagster keeps its history.

    Raises ConfigurationError when ``DAGSTER_HOME`` is set and not usable.
    """
    named = os.environ.get("DAGSTER_HOME", "").strip()
    if named:
        return _usable(Path(named).expanduser())
    if (Path.cwd() / CONFIG_FILE).is_file():
        return Path.cwd()
    return settings.data_path / "dagster"


@contextmanager
def open_instance(settings: "Settings", home: Path | None = None) -> Iterator[dg.DagsterInstance]:
    """The instance at ``home``, or at ``dagster_home``; made when it is not there yet.

    Raises ConfigurationError when it cannot be opened, and StateError when, inside the block
    too, its database cannot be used: a full disk mostly.
    """
    folder = home or dagster_home(settings)
    try:
        with _opened(folder) as instance:
            yield instance
    except DBAPIError as error:  # Dagster's own: what our store meets is a StateError there
        raise StateError(
            f"Dagster's history in {folder} cannot be used: {error.orig}; "
            "check the disk's free space and the folder's permissions, and run again"
        ) from error


@contextmanager
def _opened(folder: Path) -> Iterator[dg.DagsterInstance]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        instance = dg.DagsterInstance.from_ref(instance_ref(folder, _overrides(folder)))
    except (OSError, dg.DagsterError) as error:
        raise ConfigurationError(
            f"Dagster's history in {folder} cannot be opened: {error}; "
            f"check {folder / CONFIG_FILE} and DAGSTER_HOME"
        ) from error
    with instance:
        yield instance


def _overrides(home: Path) -> dict[str, object]:
    """What is ours in the instance; without a ``dagster.yaml`` the storage too, on its files."""
    if (home / CONFIG_FILE).is_file():
        return _OVERRIDES
    return {**_OVERRIDES, "storage": {"custom": {**_STORAGE, "config": {"base_dir": str(home)}}}}


def _usable(home: Path) -> Path:
    if not home.is_absolute():
        raise ConfigurationError(f"DAGSTER_HOME is {home}; it must be an absolute path")
    if not home.is_dir():
        raise ConfigurationError(f"DAGSTER_HOME is {home}, which is not a folder; make it first")
    return home
