"""``python -m benchmarks.budgets``: many processes on one budget, with somebody watching.

Sixty-four workers in eight processes have ten times as much to do as the budget allows. A
watcher reads what is spent and reserved all along, as fast as it can. Then the same with
every second process killed. Prints a table; with ``--json``, one object a line.
"""

import argparse
import json
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

from embedding_pipeline_tests.servers import postgres
from embedding_pipeline_tests.service.spending import Outcome, spend

COLUMNS = ("limit", "most", "looks", "spent", "settled", "unknown", "billed", "reserved")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--workers", type=int, default=8, help="of each process")
    parser.add_argument("--texts", type=int, default=200, help="of each worker")
    parser.add_argument("--postgres", action="store_true", help="else SQLite")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.json:
        print("kill -9 ", *(f"{name:>9}" for name in COLUMNS), "  used  kept  seconds")
    for kill in (False, True):
        with tempfile.TemporaryDirectory() as folder, _store(options.postgres, folder) as url:
            found = spend(
                url,
                Path(folder),
                processes=options.processes,
                workers=options.workers,
                texts=options.texts,
                kill=kill,
            )
        print(_json(found, kill) if options.json else _row(found, kill), flush=True)


def _store(server: bool, folder: str) -> AbstractContextManager[str]:
    return postgres() if server else nullcontext(f"sqlite:///{folder}/state.db")


def _kept(found: Outcome) -> bool:
    return (
        found.most <= found.limit
        and found.spent >= 0.98 * found.limit
        and found.reserved == 0
        and found.unknown >= found.billed - found.settled
    )


def _row(found: Outcome, kill: bool) -> str:
    figures = " ".join(f"{getattr(found, name):>9,}" for name in COLUMNS)
    used = found.spent / found.limit
    kept = "yes" if _kept(found) else "NO"
    return f"{'half' if kill else 'none':8} {figures}  {used:5.1%}  {kept:4}  {found.seconds:6.1f}"


def _json(found: Outcome, kill: bool) -> str:
    return json.dumps({"kill": kill, **asdict(found), "kept": _kept(found)})


if __name__ == "__main__":
    main()
