"""Figures as ``docs/benchmarks.json``, ``docs/benchmarks.md`` and one picture a scenario.

Belongs here: words, tables, bars. Does not belong here: measuring (``scenarios``). Only the
scenarios that ran are replaced; the others keep their figures, each with its own date.
"""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import PINS
from benchmarks.peers.scenarios import SCENARIOS, Bench

DOCS = Path("docs")
RESULTS = DOCS / "benchmarks.json"
BAR, WIDTH, LEFT = 22, 640, 110

HEAD = """# Side by side

Written by `make bench`; do not edit. Every client runs in a process and an environment of its own,
pinned, against a fake of OpenAI's API in another process, whose books say what was billed. Texts
have 780 characters, vectors 1,536 dimensions; requests hold 256 texts and 16 are out at once where
a client lets one say so. Ours writes every vector to a durable cache and every bill to a ledger in
all of these; the others store nothing, except LangChain (`CacheBackedEmbeddings` over files) and
LiteLLM (its disk cache, where it is installed). Figures of one scenario may be compared; on a
shared machine they move by a third from run to run. Where others are better, it stands here too.
"""


def machine() -> str:
    """The machine, in a few words."""
    system = f"{platform.system()} {platform.machine()}"
    return f"{os.cpu_count()} cores, {system}, Python {platform.python_version()}"


def keep(letter: str, bench: Bench, figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Add one scenario's figures to the results."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[letter] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "chunks": bench.chunks,
        "figures": figures,
    }
    RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")


def write() -> None:
    """The page and its pictures, from the results."""
    results = json.loads(RESULTS.read_text())
    pins = ", ".join(f"{name} (`{versions[0]}`)" for name, versions in PINS.items())
    parts = [HEAD, f"Clients: {pins}.\n"]
    for letter, result in results.items():
        parts.append(_section(letter, result))
    (DOCS / "benchmarks.md").write_text("\n".join(parts))


def _section(letter: str, result: Mapping[str, Any]) -> str:
    title, scenario = SCENARIOS[letter]
    about = (scenario.__doc__ or "").split(":", 1)[1].strip()
    figures: Mapping[str, Mapping[str, Any]] = result["figures"]
    names = list(dict.fromkeys(name for row in figures.values() for name in row))
    shown = [
        name for name in names if any(row.get(name) not in ("", None) for row in figures.values())
    ]
    where = f"{result['date']}, {result['machine']}, load {result['load']} at the end."
    lines = [
        f"## {letter}: {title}\n",
        f"{about[0].upper()}{about[1:]} {result['chunks']:,} chunks; {where}\n",
        f"| client | {' | '.join(shown)} |",
        "|---" * (len(shown) + 1) + "|",
    ]
    lines += [
        f"| {client} | {' | '.join(_cell(row.get(name, '')) for name in shown)} |"
        for client, row in figures.items()
    ]
    first = next(
        (n for n in shown if any(isinstance(r.get(n), float) for r in figures.values())), ""
    )
    if first:
        picture = DOCS / "_static" / f"bench-{letter.lower()}.svg"
        picture.write_text(_bars(first, {c: r.get(first) for c, r in figures.items()}))
        lines.append(f"\n![{first}, by client](_static/{picture.name})")
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _bars(title: str, values: Mapping[str, object]) -> str:
    """Horizontal bars, longest first in the order given; readable on dark pages as on light."""
    numbers = {name: float(v) for name, v in values.items() if isinstance(v, int | float)}
    most = max(numbers.values(), default=0.0) or 1.0
    rows = []
    for index, (name, value) in enumerate(numbers.items()):
        top, length = 24 + index * BAR, max(1.0, value / most * (WIDTH - LEFT - 90))
        colour = "#2563eb" if name == "ours" else "#94a3b8"
        rows.append(
            f'<text x="{LEFT - 6}" y="{top + 13}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LEFT}" y="{top}" width="{length:.0f}" height="{BAR - 6}" fill="{colour}"/>'
            f'<text x="{LEFT + length + 6:.0f}" y="{top + 13}">{_cell(value)}</text>'
        )
    height = 30 + len(numbers) * BAR
    style = "text{font:12px sans-serif;fill:#64748b}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}"><style>{style}</style>'
        f'<text x="{LEFT}" y="14">{escape(title)}</text>{"".join(rows)}</svg>\n'
    )
