"""Near-duplicates side by side: seconds, CPU seconds, memory, recall.

    python -m benchmarks.neardup FOLDER --chunks 100000

FOLDER is where the corpus and one environment a library are kept; what is there is used again.
Ours reads ``raw_chunks`` from disk and writes both datasets in that time; the others start
with the texts in memory. A planted copy of at least 0.9 similarity counts as found when one of
the two texts was left out; one of less than 0.9 that was left out is a wrong merge.
"""

import argparse
import csv
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.neardup import corpus
from benchmarks.neardup.ours import DAY
from embedding_pipeline.vectors.datasets import Datasets

PEERS = ("datasketch", "text-dedup", "semhash")
HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", default=["ours", *PEERS])
    wanted = parser.parse_args()
    folder = wanted.folder.resolve()
    datasets, truth = Datasets(folder / str(wanted.chunks)), folder / f"{wanted.chunks}.csv"
    if not truth.exists():
        truth.parent.mkdir(parents=True, exist_ok=True)
        corpus.make(datasets, DAY, wanted.chunks, truth)
    for name in wanted.only:
        out = folder / f"{name}.kept"
        try:
            figures = _ours(datasets, out) if name == "ours" else _peer(name, folder, datasets, out)
        except subprocess.CalledProcessError as error:
            said = ["no word", *error.stderr.strip().splitlines()][-1]
            print(f"{name:12} skipped, exit code {error.returncode}: {said[:150]}")
            continue
        print(f"{name:12} {_line(figures, truth, set(out.read_text().split()))}", flush=True)


def _ours(datasets: Datasets, out: Path) -> dict[str, float]:
    shutil.rmtree(datasets.root / "signatures", ignore_errors=True)
    return _run([sys.executable, "-m", "benchmarks.neardup.ours", str(datasets.root), str(out)])


def _peer(name: str, folder: Path, datasets: Datasets, out: Path) -> dict[str, float]:
    home = folder / f"venv-{name}"
    python = str(home / "bin" / "python")
    if not home.exists():
        venv.create(home, with_pip=True)
        _run([python, "-m", "pip", "install", "-q", name, "pyarrow"], parse=False)
    source = str(datasets.raw_chunks(DAY).path)
    return _run([python, str(HERE / "peers.py"), name, source, str(out)])


def _run(command: list[str], *, parse: bool = True) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1]) if parse else {}
    return figures


def _line(figures: dict[str, float], truth: Path, kept: set[str]) -> str:
    with truth.open(newline="") as file:
        rows = [(copy, original, float(value)) for copy, original, value in csv.reader(file)]
    near = [row for row in rows if row[2] >= 0.9]
    far = [row for row in rows if row[2] < 0.9]
    found = sum(not kept.issuperset(row[:2]) for row in near)
    wrong = sum(row[0] not in kept for row in far)
    return (
        f"{figures['seconds']:8.1f} s {figures['cpu']:8.1f} CPU s {figures['mb']:6.0f} MB  "
        f"kept {len(kept):8,}  "
        f"recall {found / len(near):.4f} of {len(near):,}  "
        f"below 0.9 but left out {wrong:,} of {len(far):,}"
    )


if __name__ == "__main__":
    main()
