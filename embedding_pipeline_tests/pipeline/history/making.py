"""Histories made on the spot."""

from datetime import date, timedelta
from typing import Any

from embedding_pipeline.pipeline.history.figures import History, Saving, Spending

TODAY = date(2026, 11, 20)
MODEL = "openai/text-embedding-3-small"


def spent(days_ago: int, cost: int, **changes: Any) -> Spending:
    values: dict[str, Any] = {
        "project": "docs",
        "user": "",
        "model": MODEL,
        "kind": "api",
        "bulk": True,
        "requests": 1,
        "tokens": cost // 20,
        "cost_nano_usd": cost,
        "unknown_nano_usd": 0,
        **changes,
    }
    return Spending(day=TODAY - timedelta(days=days_ago), **values)


def history(*rows: Spending, today: date = TODAY, **more: Any) -> History:
    return History(today, rows, more.pop("savings", ()), **more)


def saving(source: str, chunks: int, saved: int = 0, project: str = "docs") -> Saving:
    return Saving(project, source, chunks, 10 * chunks, saved)
