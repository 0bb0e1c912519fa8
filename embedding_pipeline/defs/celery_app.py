"""The Celery application of the workers: ``celery -A embedding_pipeline.defs.celery_app worker``.

Belongs here: making it from the run launcher in ``dagster.yaml``, so that whoever sends runs
and whoever takes them read one and the same configuration. Does not belong here: any option.
"""

from celery import Celery
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from embedding_pipeline.defs.compat import configured_launcher
from embedding_pipeline.errors import ConfigurationError


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
    return launcher.celery


app = build_app()
