"""Real I/O with waits that take no time, and services on a fresh state file."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.settings.tree import Settings
from embedding_pipeline.state.owners import RENEW_SECONDS

MODEL = "text-embedding-3-small"


class QuickClock:
    """Time as the machine has it, plus every wait that was asked for and skipped.

    The heartbeat's sleep stays real: skipping it would only spin.
    """

    def __init__(self) -> None:
        self.skipped = 0.0

    def now(self) -> float:
        return time.time() + self.skipped

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped

    async def sleep(self, seconds: float) -> None:
        if seconds == RENEW_SECONDS:
            await asyncio.sleep(seconds)
            return
        self.skipped += seconds
        await asyncio.sleep(0)


def settings_for(folder: Path, base_url: str, **sections: Mapping[str, Any] | str) -> Settings:
    """Settings for the fake API, state and data below ``folder``; sections are merged in.

    An attempt may take long: a busy machine is no outage. What is given up fails the run
    unless the test says otherwise: so errors are seen.
    """
    tree: dict[str, Any] = {
        "data_dir": str(folder),
        "embedding": {"model": f"openai/{MODEL}"},
        "providers": [{"name": "openai", "kind": "openai", "base_url": base_url}],
        "retry": {"timeout_seconds": 300},
        "on_outage": "fail",
    }
    for name, values in sections.items():
        tree[name] = values if isinstance(values, str) else {**tree.get(name, {}), **values}
    return load_settings(tree)
