"""Results as JSON: what was measured, where, with which versions, each round's figure.

Belongs here: the file's form, adding to it, and reading figures off it. Does not belong here:
measuring, or words about it (``page``).

Only what was measured anew is replaced, so that a run may be of some scenarios or some clients,
and a run that is stopped leaves what it has.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.stage import Row, Size

FORMAT = 1

Results = dict[str, Any]
"""``{format, versions, left_out, scenarios: {letter: {title, date, machine, chunks, load,
clients: {name: {figures: {column: [a number a round]}, note}}}}}``."""


def load(file: Path) -> Results:
    """What is there; nothing yet, or another form, is an empty one."""
    found = json.loads(file.read_text()) if file.exists() else {}
    if found.get("format") == FORMAT:
        return dict(found)
    return {"format": FORMAT, "versions": {}, "left_out": {}, "scenarios": {}}


def save(results: Results, file: Path) -> None:
    """Replace the file in one step."""
    ordered = {**results, "scenarios": dict(sorted(results["scenarios"].items()))}
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(ordered, indent=1) + "\n")
    partial.replace(file)


def begin(results: Results, letter: str, title: str, size: Size) -> None:
    """A scenario is about to be measured: where, when, how much.

    What other clients had stays only where it was the same machine and as much.
    """
    before = results["scenarios"].get(letter, {})
    same = (before.get("machine"), before.get("chunks")) == (machine(), size.chunks)
    results["scenarios"][letter] = {
        "title": title,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "chunks": size.chunks,
        "clients": before["clients"] if same else {},
    }


def add(results: Results, letter: str, client: str, row: Row, *, first: bool) -> None:
    """One client's figures of one round; the first replaces what was there."""
    clients = results["scenarios"][letter]["clients"]
    if first or client not in clients:
        clients[client] = {"figures": {}, "note": ""}
    kept = clients[client]
    for name, value in row.figures.items():
        kept["figures"].setdefault(name, []).append(float(f"{value:.5g}"))
    kept["note"] = row.note or kept["note"]


def values(results: Results, letter: str, client: str, name: str) -> list[float]:
    """A figure's rounds; none where there is no such figure."""
    scenario = results["scenarios"].get(letter, {"clients": {}})
    found: list[float] = scenario["clients"].get(client, {}).get("figures", {}).get(name, [])
    return found


def typical(figures: list[float]) -> float | None:
    """The median; None of nothing."""
    return median(figures) if figures else None


def rounds(results: Results) -> Iterator[tuple[str, str, list[float]]]:
    """Scenario, client and figures of everything that was measured more than once."""
    for letter, scenario in results["scenarios"].items():
        for client, row in scenario["clients"].items():
            yield from (
                (letter, client, figures) for figures in row["figures"].values() if figures[1:]
            )


def machine() -> Mapping[str, str | int | float]:
    """Cores, processor, memory, system, Python."""
    return {
        "cores": os.cpu_count() or 0,
        "processor": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    """As the kernel calls it."""
    said = Path("/proc/cpuinfo")
    lines = said.read_text().splitlines() if said.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
