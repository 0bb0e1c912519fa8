"""``python -m benchmarks.limits [SCENE …]``: what the shared rate limit promises, measured.

Scenes: ``matrix`` (429s and use of the limit: processes × limits × known or learned ×
stores), ``overhead``, ``killed``, ``weights``, ``equals``, ``urgent``, ``halved``, ``blind``
(halved, without headers). None named: all of them. Needs the development dependencies.

With ``--results FILE`` every figure is added to the file as a line of JSON as soon as it is
there; what the file holds is not measured again, so that a long run may be interrupted.
Ends with a table, and with exit code 1 where something does not hold.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.limits import matrix, overhead, scenes
from benchmarks.limits.stage import Figures

STORES = ["sqlite", "postgres", "redis"]
SCENES = {
    "killed": scenes.killed,
    "weights": scenes.weights,
    "equals": scenes.equals,
    "urgent": scenes.urgent,
    "halved": scenes.halved,
    "blind": scenes.blind,
}
Job = tuple[str, Callable[[], Figures]]


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    """What is to be measured: a name, and how."""
    wanted = options.scenes or ["overhead", *SCENES, "matrix"]
    for name in wanted:
        if name == "matrix":
            for cell in matrix.cells(options.stores, options.processes):
                yield f"matrix/{cell.name}", partial(matrix.measure, cell, options.seconds)
        else:
            for store in options.stores:
                yield f"{name}/{store}", partial(_scene(name, options.seconds), store)


def _scene(name: str, seconds: float) -> Callable[[str], Figures]:
    if name == "overhead":
        return overhead.measure
    return lambda store: SCENES[name](store, seconds)


def line(name: str, figures: Figures) -> str:
    """One line of the table."""
    said = "  ".join(f"{key} {value}" for key, value in figures.items() if key != "holds")
    return f"{'holds' if figures['holds'] else 'FAILS'}  {name:28} {said}"


def _earlier(file: Path | None) -> dict[str, Figures]:
    if file is None or not file.exists():
        return {}
    return dict(map(json.loads, file.read_text().splitlines()))


def main() -> None:
    parser = argparse.ArgumentParser("benchmarks.limits", description=__doc__)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="default: all")
    parser.add_argument("--seconds", type=float, default=45, help="of a window")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--results", type=Path, help="JSON lines; what is there is kept")
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    options = parser.parse_args()
    unknown = set(options.scenes) - {*SCENES, "matrix", "overhead"}
    if unknown:
        parser.error(f"no such scene: {', '.join(sorted(unknown))}")
    found = _earlier(options.results)
    asked: dict[str, Figures] = {}
    for name, measure in jobs(options):
        if name not in found:
            found[name] = measure()
            if options.results:
                with options.results.open("a") as file:
                    file.write(json.dumps([name, found[name]]) + "\n")
        asked[name] = found[name]
        print(
            json.dumps({name: asked[name]}) if options.json else line(name, asked[name]), flush=True
        )
    sys.exit(not all(figures["holds"] for figures in asked.values()))


if __name__ == "__main__":
    main()
