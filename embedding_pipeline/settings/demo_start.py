"""The demo's first day: seven days ago, kept once it has been used.

Belongs here: choosing and keeping that day. Does not belong here: the demo's text (``sources``).
"""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from embedding_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from embedding_pipeline.settings.tree import Settings

DEMO_DAYS: Final = 7
_DEMO_START_FILE: Final = "demo_start_date"


def pin_demo_start(settings: "Settings") -> None:
    """Keep the demo's first day, so that tomorrow's partitions are today's plus one.

    Raises:
        SettingsError: ``data_dir`` cannot be written.
    """
    folder = settings.data_path
    if settings.partitions.start_date is not None or _pinned_start(folder) is not None:
        return
    own = folder / f"{_DEMO_START_FILE}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        own.write_text(settings.start_date.isoformat())
        own.replace(folder / _DEMO_START_FILE)  # whole at once; others write the same day
    except OSError as exc:
        raise SettingsError(
            f"data_dir: {folder} cannot be written: {exc.strerror}; "
            "give write permission, or set data_dir to a folder of yours"
        ) from exc


def _pinned_start(data_path: Path) -> date | None:
    try:
        return date.fromisoformat((data_path / _DEMO_START_FILE).read_text().strip())
    except (OSError, ValueError):
        return None


def demo_start(data_path: Path) -> date:
    """The demo's first day: the one that was kept, else seven days ago."""
    return _pinned_start(data_path) or datetime.now(UTC).date() - timedelta(days=DEMO_DAYS)
