"""The Celery application of the workers: ``celery -A embedding_pipeline.defs.celery_app worker``.

Belongs here: making it from the run launcher in ``dagster.yaml``, so that whoever sends runs
and whoever takes them read one and the same configuration; and importing once what every run
needs. Does not belong here: any option.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Final

from celery import Celery
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from embedding_pipeline.defs.compat import configured_launcher
from embedding_pipeline.errors import ConfigurationError

NEEDED_BY_RUNS: Final = (
    "dagster_postgres",
    "embedding_pipeline.assembly.embedder",
    "embedding_pipeline.definitions",
    "numpy",
    "openai",
    "psycopg",
    "pyarrow.dataset",
    "redis.asyncio",
)
"""A run is a process that its worker forks: what the worker has imported, it has too, in the
same memory. Only modules that read no settings and open nothing when they are imported."""


def share(modules: Sequence[str]) -> None:
    """Import what is installed of ``modules``."""
    for name in modules:
        try:
            import_module(name)
        except ModuleNotFoundError:  # an extra that these settings may well do without
            continue


def build_app() -> Celery:
    """The application that ``$DAGSTER_HOME/dagster.yaml`` describes.

    Raises:
        ConfigurationError: it names no Celery run launcher.
    """
    launcher = configured_launcher()
    if not isinstance(launcher, CeleryRunLauncher):
        raise ConfigurationError(
            "dagster.yaml in DAGSTER_HOME names no Celery run launcher; deploy/dagster.yaml does"
        )
    create_execute_job_task(launcher.celery)
    create_resume_job_task(launcher.celery)
    share(NEEDED_BY_RUNS)
    return launcher.celery


app = build_app()
