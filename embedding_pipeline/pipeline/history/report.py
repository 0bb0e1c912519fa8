"""The report on costs: one page of HTML that needs nothing else, and its charts.

Belongs here: what is shown, and in which order. Does not belong here: figures or advice.
The page has no script and loads nothing; names are escaped.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from typing import Final

import pyarrow as pa

from embedding_pipeline.pipeline import charts
from embedding_pipeline.pipeline.charts import Series
from embedding_pipeline.pipeline.history.advice import Advice
from embedding_pipeline.pipeline.history.figures import (
    History,
    Projection,
    Spending,
    cost_by,
    cost_by_day,
    project,
)
from embedding_pipeline.pipeline.words import size, usd, usd_or_unknown

CHART_DAYS: Final = 60
NAMED: Final = 6
"""Projects with a colour of their own; the rest share one."""

LONGEST: Final = 12
"""Bars of one chart."""

TABLE_ROWS: Final = 500

SPENDING_COLUMNS: Final = pa.schema(
    [
        ("day", pa.date32()),
        *((name, pa.string()) for name in ("project", "user", "model", "kind")),
        ("bulk", pa.bool_()),
        *((name, pa.int64()) for name in ("requests", "tokens")),
        *((name, pa.int64()) for name in ("cost_nano_usd", "unknown_nano_usd")),
        ("unpriced_tokens", pa.int64()),
    ]
)

REST: Final = "others"
SAVED_BY: Final = {
    "duplicate": "deduplication",
    "cache": "cache",
    "derived": "cached parts of long texts",
    "batch_api": "Batch API",
}


@dataclass(frozen=True)
class Chart:
    """A chart with its name."""

    name: str
    title: str
    svg: str


def charts_of(history: History) -> list[Chart]:
    """Spending by day and project, by project, by model, and what was saved by what."""
    found = [
        Chart("spending_by_day", "Spending by day and project", _by_day(history)),
        _bars("spending_by_project", "Spending by project", history, lambda row: row.project),
        _bars("spending_by_model", "Spending by model", history, lambda row: row.model),
    ]
    saved = {SAVED_BY[source]: float(nano) for source, nano in history.saved_by().items() if nano}
    if saved:
        svg = charts.bars("Saved by", saved, _words)
        found.append(Chart("saved_by", "Saved by", svg))
    return found


def _bars(name: str, title: str, history: History, key: Callable[[Spending], str]) -> Chart:
    return Chart(name, title, charts.bars(title, _few(cost_by(history.spending, key)), _words))


def _few(sums: Mapping[str, int]) -> dict[str, float]:
    """The largest, and the rest as one."""
    names = list(sums)
    kept = {name: float(sums[name]) for name in names[:LONGEST]}
    if len(names) > LONGEST:
        kept[f"{len(names) - LONGEST} {REST}"] = float(sum(sums[n] for n in names[LONGEST:]))
    return kept


def _by_day(history: History) -> str:
    first = history.today - timedelta(days=CHART_DAYS - 1)
    if history.first_day is not None:
        first = max(first, min(history.first_day, history.today - timedelta(days=13)))
    rows = history.since(first)
    largest = list(cost_by(rows, lambda row: row.project))
    named = largest if len(largest) <= NAMED + 1 else largest[:NAMED]
    series = []
    for name in [*named, *([REST] if len(named) < len(largest) else [])]:
        own = [row for row in rows if (row.project if row.project in named else REST) == name]
        days = cost_by_day(own, first, history.today)
        series.append(Series(name, [float(cost) for cost in days.values()]))
    labels = [
        (first + timedelta(days=n)).isoformat() for n in range((history.today - first).days + 1)
    ]
    title = "Spending by day and project"
    return charts.columns(title, labels, series or [Series("", [0.0] * len(labels))], _words)


def _words(nano: float) -> str:
    return usd(round(nano))


def tables_of(history: History) -> dict[str, tuple[Sequence[str], list[Sequence[str]]]]:
    """Each table by its title: its columns, and its rows in words."""
    return {
        "By project": _table("project", history, lambda row: row.project),
        "By user": _table("user", history, lambda row: f"{row.project} / {row.user or '–'}"),
        "By model": _table("model", history, lambda row: row.model),
        "By day": _days(history),
    }


def _table(
    title: str, history: History, key: Callable[[Spending], str]
) -> tuple[Sequence[str], list[Sequence[str]]]:
    """One row a name, the most expensive first."""
    found = sorted(_sums(history, key).items(), key=lambda pair: (-pair[1][2], pair[0]))
    return (title, *_HEAD), [(name, *_words_of(sums)) for name, sums in found[:TABLE_ROWS]]


def _days(history: History) -> tuple[Sequence[str], list[Sequence[str]]]:
    """One row a day, the latest first."""
    found = sorted(_sums(history, lambda row: row.day.isoformat()).items(), reverse=True)
    return ("day", *_HEAD), [(day, *_words_of(sums)) for day, sums in found[:TABLE_ROWS]]


_HEAD: Final = ("requests", "tokens", "cost", "of it in doubt")


def _sums(history: History, key: Callable[[Spending], str]) -> dict[str, list[int]]:
    """Requests, tokens, cost and what of it is in doubt, by some property."""
    sums: dict[str, list[int]] = {}
    for row in history.spending:
        known = sums.setdefault(key(row), [0, 0, 0, 0])
        known[0] += row.requests
        known[1] += row.tokens
        known[2] += row.cost_nano_usd
        known[3] += row.unknown_nano_usd
    return sums


def _words_of(sums: Sequence[int]) -> tuple[str, ...]:
    requests, tokens, cost, unknown = sums
    return (f"{requests:,}", f"{tokens:,}", usd(cost), usd(unknown))


def headline(history: History, projection: Projection) -> list[tuple[str, str, str]]:
    """The figures at the top: name, value, and what to know of it."""
    month = f"{projection.month:%B %Y}"
    pace = f"at {usd(projection.pace)} a day, the mean of the last {projection.pace_days} full days"
    share = history.saved_nano_usd / (history.saved_nano_usd + history.cost_nano_usd or 1)
    return [
        (f"Spent in {month}", usd(projection.spent), f"up to {history.today.isoformat()}"),
        (
            f"Expected for {month}",
            usd_or_unknown(projection.expected),
            pace if projection.pace_days else "no full day is known yet",
        ),
        (
            "Spent in all",
            usd(history.cost_nano_usd),
            f"{usd(history.unknown_nano_usd)} of it in doubt: no usable answer"
            + _unpriced(history),
        ),
        (
            "Saved in all",
            usd(history.saved_nano_usd),
            f"{share:.0%} of what {history.partitions:,} finished days would have cost",
        ),
    ]


def _unpriced(history: History) -> str:
    tokens = history.unpriced_tokens
    return f"; {tokens:,} tokens without a known price are not in it" if tokens else ""


def storage_of(history: History) -> list[Sequence[str]]:
    """The vectors in files, in words."""
    return [
        (
            row.space,
            f"{row.dimensions} of {row.native}",
            f"{row.vectors:,}",
            size(row.file_bytes),
            size(row.spared_bytes),
        )
        for row in history.stored
    ]


def render(history: History, advice: Sequence[Advice], made: str) -> str:
    """The page.

    Args:
        history: the figures.
        advice: what follows from them.
        made: when and from what, in words.
    """
    from jinja2 import Environment, StrictUndefined

    source = resources.files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        source
    )
    return page.render(
        headline=headline(history, project(history)),
        charts=charts_of(history),
        tables=tables_of(history),
        storage=storage_of(history),
        saved=[
            (SAVED_BY[source], usd(nano)) for source, nano in history.saved_by().items() if nano
        ],
        advice=advice,
        made=made,
    )


def spending_table(rows: Sequence[Spending]) -> pa.Table:
    """``spending.parquet``: what was booked, for whoever wants to look closer."""
    columns = {name: [getattr(row, name) for row in rows] for name in SPENDING_COLUMNS.names}
    return pa.Table.from_pydict(columns, schema=SPENDING_COLUMNS)
