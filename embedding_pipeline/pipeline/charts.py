"""Small charts as SVG: stacked columns over days, and bars by name.

Belongs here: drawing. Pure, without a library: what a report needs is a few rectangles and
words, readable in light and dark, as part of a page and as an image of its own.

Every chart names itself (``<title>``), and every rectangle says its figure when pointed at.
"""

import base64
import html
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 720
NARROW: Final = 560
"""Width of an image of its own: what stands in a cell of a table."""

COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c")
"""Okabe and Ito's, which people with any colour vision can tell apart; the last is for the rest."""

_NOT_XML: Final = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")
_HEIGHT: Final = re.compile(r' height="[0-9.]+"')
_HINT: Final = re.compile(r"><title>[^<]*</title></rect>")
_LEFT, _RIGHT, _TOP, _ROW = 84, 12, 10, 26
_PLOT: Final = 190
_LABEL: Final = 112

_STYLE: Final = (
    "<style>.c{font:12px system-ui,sans-serif}.t{fill:#333}.g{stroke:#8884;stroke-width:1}"
    "@media(prefers-color-scheme:dark){.t{fill:#ddd}}</style>"
)

Words = Callable[[float], str]


@dataclass(frozen=True)
class Series:
    """One colour of a stacked chart: a name, and a value for each column."""

    name: str
    values: Sequence[float]


def columns(title: str, labels: Sequence[str], series: Sequence[Series], words: Words) -> str:
    """Stacked columns, one a label, with a legend where there are several series.

    Args:
        title: what is shown.
        labels: below the columns; as many as fit are written.
        series: at most as many as there are colours.
        words: how a value reads.
    """
    totals = [sum(values) for values in zip(*(one.values for one in series), strict=True)]
    top = nice(max(totals, default=0))
    legend = _legend([one.name for one in series]) if len(series) > 1 else ""
    head = _TOP + (24 * _legend_rows(len(series)) if legend else 0)
    step = (WIDTH - _LEFT - _RIGHT) / max(len(labels), 1)
    parts = [legend, *_grid(head, top, words)]
    for column, label in enumerate(labels):
        base = float(head + _PLOT)
        for number, one in enumerate(series):
            height = one.values[column] / top * _PLOT
            base -= height
            if height > 0:
                hint = f"{label}: {one.name} {words(one.values[column])}"
                parts.append(
                    _box(_LEFT + column * step + step * 0.1, base, step * 0.8, height, number, hint)
                )
    parts += _under(labels, step, head + _PLOT + 16)
    return _svg(title, head + _PLOT + 26, parts)


def bars(title: str, values: Mapping[str, float], words: Words) -> str:
    """Horizontal bars in the order given, each with its name and its figure."""
    most = max(values.values(), default=0) or 1
    left, right = 190, 110
    parts: list[str] = []
    for row, (name, value) in enumerate(values.items()):
        top = _TOP + row * _ROW
        width = max(value / most * (WIDTH - left - right), 1 if value else 0)
        parts += [
            _text(left - 8, top + 15, shorten(name, 26), "end"),
            _box(left, top + 2, width, _ROW - 8, 0, f"{name}: {words(value)}"),
            _text(left + width + 6, top + 15, words(value)),
        ]
    return _svg(title, 2 * _TOP + len(values) * _ROW, parts)


def as_image(title: str, svg: str) -> str:
    """A chart as Markdown that holds the image itself, without what needs a pointer."""
    narrow = svg.replace(f'width="{WIDTH}"', f'width="{NARROW}"', 1)
    data = base64.b64encode(_HINT.sub("/>", _HEIGHT.sub("", narrow, count=1)).encode()).decode()
    return f"![{title}](data:image/svg+xml;base64,{data})"


def nice(most: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is not below ``most``."""
    if most <= 0:
        return 1.0
    power = 10.0 ** len(str(int(most)))
    while power > most:
        power /= 10
    return next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= most)


def shorten(name: str, most: int) -> str:
    """A name with its middle left out, where it is too long to be written."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"


def _grid(head: float, top: float, words: Words) -> list[str]:
    lines: list[str] = []
    for quarter in range(5):
        y = head + _PLOT * (4 - quarter) / 4
        lines.append(f'<line class="g" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:g}" y2="{y:g}"/>')
        lines.append(_text(_LEFT - 8, y + 4, words(top * quarter / 4), "end"))
    return lines


def _under(labels: Sequence[str], step: float, y: float) -> list[str]:
    """As many labels as there is room for, from the last one back."""
    every = max(1, math.ceil(_LABEL / step))
    shown = range(len(labels) - 1, -1, -every)
    right = WIDTH - _RIGHT
    return [
        _text(right, y, labels[n], "end")
        if _LEFT + (n + 0.5) * step > right - 36
        else _text(_LEFT + (n + 0.5) * step, y, labels[n], "middle")
        for n in shown
    ]


def _legend_rows(count: int) -> int:
    return -(-count // 4)


def _legend(names: Sequence[str]) -> str:
    parts: list[str] = []
    for number, name in enumerate(names):
        x, y = _LEFT + (number % 4) * 156, _TOP + 24 * (number // 4)
        parts.append(_box(x, y, 12, 12, number, name))
        parts.append(_text(x + 18, y + 11, shorten(name, 20)))
    return "".join(parts)


def _box(x: float, y: float, width: float, height: float, colour: int, hint: str) -> str:
    fill = COLOURS[min(colour, len(COLOURS) - 1)]
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {shape} fill="{fill}"><title>{_escaped(hint)}</title></rect>'


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return (
        f'<text class="c t" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_escaped(words)}</text>'
    )


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
        f'width="{WIDTH}" height="{height:g}" role="img"><title>{_escaped(title)}</title>'
        f"{_STYLE}{''.join(parts)}</svg>"
    )


def _escaped(words: str) -> str:
    """Words as XML may hold them: no markup, and no character that XML does not know."""
    return html.escape(_NOT_XML.sub("\ufffd", words))
