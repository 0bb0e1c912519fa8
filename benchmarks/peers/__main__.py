"""``python -m benchmarks.peers``: scenarios A to J, every client, one page.

``--quick`` asks a tenth: for trying it out; the page is marked. Results go to
``benchmarks.json`` and ``benchmarks.md`` in ``--docs`` after every run, so that stopping it
(Ctrl-C) loses one run. Scenarios and clients that are not named keep the figures they had.
"""

import argparse
import signal
from pathlib import Path

from benchmarks.peers import results
from benchmarks.peers.environments import PACKAGES, find, token_tables
from benchmarks.peers.running import Places, run, turns
from benchmarks.peers.scenarios import SCENARIOS
from benchmarks.peers.stage import Bench, Size

ORDER = [letter for letter in SCENARIOS if letter != "G"] + ["G"]
"""The longest comes last."""

QUICK = Size(chunks=512, growing=(512, 1024), streamed=(), days=3)


def main() -> None:
    """Parse and run."""
    asked = _parser().parse_args()
    unknown = {*asked.scenarios} - {*SCENARIOS} | {*asked.clients} - {*PACKAGES}
    if unknown:
        raise SystemExit(f"There is no {', '.join(sorted(unknown))}. See --help.")
    size = Size(asked.chunks, tuple(asked.growing), tuple(asked.streamed), asked.days)
    places = Places(asked.docs, asked.readme)
    asked.docs.mkdir(parents=True, exist_ok=True)
    found = results.load(asked.docs / "benchmarks.json")
    pythons = _pythons(asked.clients, asked.environments, found)
    if asked.install_only:
        return
    plan = list(turns(asked.scenarios or ORDER, list(pythons), asked.rounds))
    tables = token_tables(asked.environments)
    size = QUICK if asked.quick else size
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Bench(pythons, size, asked.patience, asked.minutes, tables) as bench:
            run(bench, plan, found, places)
    except KeyboardInterrupt:
        raise SystemExit("Stopped; what was measured is kept.") from None


def _pythons(clients: list[str], place: Path | None, found: results.Results) -> dict[str, str]:
    """The interpreter of each client that is there; versions, and why some are not, are noted."""
    pythons = {}
    for client in clients:
        there = find(client, place)
        if there.python:
            pythons[client] = there.python
            found["versions"][client] = dict(there.versions or {})
            found["left_out"].pop(client, None)
        else:
            print(f"{client}: left out, {there.reason}", flush=True)
            found["left_out"][client] = there.reason
    return pythons


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="A to J; default: all")
    parser.add_argument("--clients", nargs="+", default=list(PACKAGES), metavar="CLIENT")
    parser.add_argument("--chunks", type=int, default=Size.chunks)
    parser.add_argument("--growing", type=int, nargs="*", default=[10_000, 100_000], help="for G")
    parser.add_argument(
        "--streamed", type=int, nargs="*", default=[300_000], help="for G, ours only (1000000)"
    )
    parser.add_argument("--days", type=int, default=30, help="for H")
    parser.add_argument("--rounds", type=int, help="default: 3 of A, 2 of B, one of the others")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument(
        "--patience", type=float, default=120, help="seconds for one run of a client"
    )
    parser.add_argument("--minutes", type=float, default=1e9, help="end after so many")
    parser.add_argument("--environments", type=Path, help="where the clients' environments are")
    parser.add_argument(
        "--install-only", action="store_true", help="make the environments, no more"
    )
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where results go")
    parser.add_argument("--readme", type=Path, help="a README whose line is to be renewed")
    return parser


if __name__ == "__main__":
    main()
