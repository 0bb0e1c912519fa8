"""Horizontal bars as SVG, an image of its own: readable in light and dark, and without seeing it.

Belongs here: drawing. Does not belong here: what is drawn.
"""

from collections.abc import Mapping
from html import escape

BAR, WIDTH, LEFT, RIGHT = 24, 680, 130, 130

STYLE = (
    "<style>.p{fill:#fff;stroke:#d0d7de}text{font:13px system-ui,sans-serif;fill:#1f2328}"
    ".o{fill:#0072b2}.b{fill:#8c959f}.s{stroke:#1f2328;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){.p{fill:#161b22;stroke:#30363d}text{fill:#e6edf3}"
    ".o{fill:#56b4e9}.b{fill:#6e7681}.s{stroke:#e6edf3}}</style>"
)
"""The panel brings its own background, since a page may be darker than the system."""


def bars(title: str, figures: Mapping[str, list[float]], said: Mapping[str, str]) -> str:
    """One bar a client, as long as the median of its rounds, with a line from least to most.

    Args:
        title: what is shown.
        figures: each client's median, least and most.
        said: the figure in words.
    """
    most = max((high for _, _, high in figures.values()), default=0.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    rows = [
        _row(number, name, [value * scale for value in three], said[name])
        for number, (name, three) in enumerate(figures.items())
    ]
    height = 44 + len(figures) * BAR
    words = "; ".join(f"{name} {said[name]}" for name in figures)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-labelledby="t d"><title id="t">{escape(title)}</title>'
        f'<desc id="d">{escape(words)}</desc>{STYLE}'
        f'<rect class="p" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>'
        f'<text x="{LEFT}" y="22">{escape(title)}</text>{"".join(rows)}</svg>\n'
    )


def _row(number: int, name: str, three: list[float], said: str) -> str:
    top = 34 + number * BAR
    middle, low, high = three
    kind = "o" if name.startswith("ours") else "b"
    line = f'<path class="s" d="M{LEFT + low:.1f} {top + 8}H{LEFT + high:.1f}"/>'
    return (
        f'<text x="{LEFT - 8}" y="{top + 13}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{LEFT}" y="{top}" width="{max(middle, 1):.1f}" height="16"/>'
        f"{line if high > low else ''}"
        f'<text x="{LEFT + max(high, 1) + 8:.1f}" y="{top + 13}">{escape(said)}</text>'
    )
