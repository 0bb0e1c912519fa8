"""Whether somebody would take a run: the Celery broker and the workers, where there are any.

Belongs here: asking them once. Does not belong here: launching (``celery_launcher``), or what a
person is told (``cli``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from embedding_pipeline.defs.compat import configured_launcher, why_unreadable
from embedding_pipeline.defs.instance import CONFIG_FILE
from embedding_pipeline.errors import ConfigurationError

ASKING_SECONDS: Final = 3.0
"""How long workers have for their answer."""

CONNECT_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Workers:
    """Who answered.

    Attributes:
        broker: its address, without a password.
        queue: where runs are put.
        serving: workers that take runs from there.
        others: workers that answered, and take from other queues only.
        problem: why the broker could not be asked; "" where it could.
    """

    broker: str
    queue: str
    serving: Sequence[str] = ()
    others: Sequence[str] = ()
    problem: str = ""


def find_workers(home: Path, seconds: float = ASKING_SECONDS) -> Workers | None:
    """Ask the workers of the instance in ``home``; None where runs need none.

    Raises:
        ConfigurationError: ``dagster.yaml`` cannot be read, or names what is not installed.
    """
    if not (home / CONFIG_FILE).is_file():
        return None
    launcher = _launcher(home)
    if not hasattr(launcher, "celery"):
        return None
    return _ask(launcher, seconds)


def _launcher(home: Path) -> Any:
    try:
        return configured_launcher(home)
    except Exception as exc:
        why = why_unreadable(exc)
        if why is None:
            raise
        raise ConfigurationError(
            f"run_launcher in {home / CONFIG_FILE}: {why}; correct it, set the variables it names, "
            "or install what it needs: pip install 'embedding-pipeline[celery]'"
        ) from exc


def _ask(launcher: Any, seconds: float) -> Workers:
    from kombu.exceptions import OperationalError
    from redis.exceptions import RedisError

    app, queue = launcher.celery, launcher.default_queue
    with app.connection_for_write() as connection:
        broker = connection.as_uri()
        try:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
            answers = app.control.inspect(timeout=seconds).active_queues() or {}
        except (OperationalError, RedisError, OSError) as exc:
            return Workers(broker, queue, problem=type(exc).__name__)
    return tally(broker, queue, answers)


def tally(broker: str, queue: str, answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> Workers:
    """Who of those that answered takes runs from ``queue``. Pure."""
    serving = {name for name, queues in answers.items() if queue in {one["name"] for one in queues}}
    return Workers(broker, queue, sorted(serving), sorted(answers.keys() - serving))
