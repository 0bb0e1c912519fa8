"""``python -m benchmarks.peers``: scenarios A to H, every client, one page.

``--quick`` asks a fiftieth: for trying it out, its figures mean little and are not written.
"""

import argparse
from pathlib import Path

from benchmarks.peers import report
from benchmarks.peers.clients import CLIENTS
from benchmarks.peers.environments import python_of
from benchmarks.peers.scenarios import SCENARIOS, Bench


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS), help="A to H")
    parser.add_argument("--clients", nargs="*", default=list(CLIENTS))
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--growing", type=int, nargs="*", default=[10_000, 50_000, 100_000])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--environments", type=Path, help="where the clients' environments are")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    found = {client: python_of(client, arguments.environments) for client in arguments.clients}
    pythons = {client: python for client, python in found.items() if python}
    bench = Bench(pythons, arguments.chunks, tuple(arguments.growing), arguments.days)
    if arguments.quick:
        bench = Bench(pythons, 600, (500, 1_000), 3)
    for letter in arguments.scenarios:
        title, scenario = SCENARIOS[letter]
        print(f"{letter}: {title}", flush=True)
        figures = {}
        for client in pythons:
            figures[client] = scenario(bench, client)
            said = ", ".join(
                f"{k} {report._cell(v)}" for k, v in figures[client].items() if v != ""
            )
            print(f"  {client:12} {said}", flush=True)
        if not arguments.quick:
            report.keep(letter, bench, figures)
            report.write()


if __name__ == "__main__":
    main()
