"""Figures as they stand in tables.

Belongs here: numbers to words.
"""

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.peers.scenarios import Column


def number(value: float | None, column: "Column") -> str:
    """Three digits, more only before the point; a dash where there is none."""
    if value is None:
        return "–"
    if column.unit == "%":
        return f"{_digits(value * 100)} %"
    return _digits(value)


def cell(rounds: list[float], column: "Column") -> str:
    """The median, and in brackets the least and the most where there were several rounds."""
    if len(rounds) < 2:
        return number(rounds[0] if rounds else None, column)
    ends = f"{number(min(rounds), column)}–{number(max(rounds), column)}"
    return f"{number(median(rounds), column)} ({ends})"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
