"""How this program's own messages are written: for people, or a JSON object a line.

Belongs here: the format, and putting it in place. Does not belong here: what is said. Messages
hold names, counts and reasons; never a key, a text or a vector.
"""

import json
import logging
from datetime import UTC, datetime
from typing import Final, Protocol

LOGGER: Final = "embedding_pipeline"
PLAIN: Final = "%(levelname)s %(name)s: %(message)s"
_OWN: Final = "_embedding_pipeline_handler"


class Wishes(Protocol):
    """What the settings say of log lines: ``format`` text or json, ``level`` as in the settings."""

    @property
    def format(self) -> str:
        """How a line looks."""

    @property
    def level(self) -> str:
        """The least that is written."""


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, logger, message, process, and maybe error."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; an exception as its type and where it was raised."""
        said: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def set_up(config: Wishes) -> None:
    """Write this program's messages to stderr as ``config`` says; again takes the place.

    As text at the usual level they go the way of all messages of the process.
    """
    logger = logging.getLogger(LOGGER)
    for old in [handler for handler in logger.handlers if handler.get_name() == _OWN]:
        logger.removeHandler(old)
    logger.propagate = (config.format, config.level) == ("text", "warning")
    if logger.propagate:
        return
    handler = logging.StreamHandler()
    handler.set_name(_OWN)
    handler.setFormatter(JsonFormatter() if config.format == "json" else logging.Formatter(PLAIN))
    logger.addHandler(handler)
    logger.setLevel(config.level.upper())
