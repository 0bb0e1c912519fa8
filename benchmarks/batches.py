"""Days through the Batch API from an empty folder, by the real command line and a poll loop.

Run with ``python -m benchmarks.batches``: 120,000 chunks over three days against the fake API in
a process of its own, whose queue takes one batch at a time. ``--arxiv FILE`` takes the listings of
sixty days from a file of JSON lines instead, and makes the same days with requests as well.
``--kill`` kills a process for real at each of fourteen marks on the way of two small days, and
shows how things stand after others came; read what it prints.

Fails unless everything ends by itself, every chunk is read back, nothing was billed twice, the
queue was never overfilled, and the ledger is what the provider billed; with ``--arxiv`` also
unless it is exactly half of what requests cost, with the same vectors.
"""

import argparse
import gzip
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml

from embedding_pipeline.assembly.parts import build_datasets, open_store
from embedding_pipeline.ledger import queries
from embedding_pipeline.settings.loading import load_settings
from embedding_pipeline.vectors.reader import iter_vectors
from embedding_pipeline_tests.batch_api.killed import main as killed
from embedding_pipeline_tests.fake_openai.process import FakeProcess, process
from embedding_pipeline_tests.fake_openai.server import KEY

PROGRAM = (sys.executable, "-c", "from embedding_pipeline.cli import main; main()")
FIRST = date(2026, 1, 1)
ENQUEUED = 900_000
"""Tokens the account may have in unfinished batches: one file of 50,000 short texts."""

Days = Mapping[str, list[str]]


@dataclass(frozen=True)
class Made:
    """What came of a folder; ``digest`` is over every chunk with its vector, in any order."""

    nano_usd: int
    chunks: int
    digest: int
    seconds: float


def short_texts(chunks: int, days: int) -> Days:
    """Rows of distinct short texts."""
    rows: dict[str, list[str]] = defaultdict(list)
    for number in range(chunks):
        day = (FIRST + timedelta(days=number * days // chunks)).isoformat()
        row = {"id": str(number), "text": f"chunk {number} is about thing {number * 7919 % 9973}"}
        rows[day].append(json.dumps(row) + "\n")
    return rows


def listings(file: Path) -> Days:
    """Real listings of sixty days."""
    rows: dict[str, list[str]] = defaultdict(list)
    with gzip.open(file, "rt") as lines:
        for line in lines:
            rows[json.loads(line)["date"]].append(line)
    return rows


def prepare(folder: Path, days: Days, api: FakeProcess, batch_api: object, **source: Any) -> None:
    """A project in a folder."""
    (folder / "source").mkdir(parents=True)
    for day, rows in days.items():
        (folder / "source" / f"{day}.jsonl").write_text("".join(rows))
    settings = {
        "partitions": {"start_date": min(days)},
        "source": {"kind": "files", "path": str(folder / "source" / "{date}.jsonl"), **source},
        "dedup": {"near": False},
        "embedding": {"model": "openai/text-embedding-3-small"},
        "providers": [{"name": "openai", "kind": "openai", "base_url": api.base_url}],
        "batch_api": batch_api,
    }
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(settings))


def environment(folder: Path) -> dict[str, str]:
    """What says which project is meant."""
    config = str(folder / "pipeline.yaml")
    return {"OPENAI_API_KEY": KEY, "EMBEDDING_PIPELINE_CONFIG": config}


def command(folder: Path, *arguments: str) -> str:
    """The real program; what it prints."""
    done = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, **environment(folder)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def make(folder: Path, days: Days) -> Made:
    """Backfill, and collect until nothing is left."""
    began = time.monotonic()
    span = ("--start", min(days), "--end", max(days))
    command(folder, "backfill", *span, "--partitions-per-run", "60", "--wait")
    print(f"  {time.monotonic() - began:.0f} s: the run has ended", flush=True)
    command(folder, "batch", "collect", "--wait", "--run", "--every", "1")
    seconds = time.monotonic() - began
    os.environ.update(environment(folder))
    settings = load_settings()
    with open_store(settings) as store:
        spent = sum(entry.cost_nano_usd for entry in store.ask(queries.sums))
    chunks, digest = 0, 0
    space = settings.model_spec.space
    for batch in iter_vectors(build_datasets(settings), space, min(days), max(days)):
        width = batch.column("vector").type.list_size
        rows = batch.column("vector").flatten().to_numpy().reshape(-1, width)
        for name, row in zip(batch.column("chunk_id").to_pylist(), rows, strict=True):
            digest ^= int.from_bytes(hashlib.sha256(name.encode() + row.tobytes()).digest())
        chunks += batch.num_rows
    return Made(spent, chunks, digest, seconds)


def main() -> int:
    """Run it; the exit code says whether it held."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--chunks", type=int, default=120_000)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--arxiv", type=Path)
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, process("--key", KEY) as api:
        folder, file = Path(name), options.arxiv
        if options.kill:
            os.environ["OPENAI_API_KEY"] = KEY
            return killed(api.port, folder)
        held = sixty(folder, file, api) if file else many(folder, options, api)
        # asked while the server runs: it holds every answer, and is not what is measured
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"largest process of ours: {peak:.0f} MB")
    print("held" if held else "DID NOT HOLD")
    return 0 if held else 1


def many(folder: Path, options: argparse.Namespace, api: FakeProcess) -> bool:
    """A queue that takes one file at a time."""
    api.batch_option(polls=2, enqueued_limit=ENQUEUED)
    days = short_texts(options.chunks, options.days)
    prepare(folder / "a", days, api, {"mode": "on", "enqueued_tokens": ENQUEUED})
    made, books, batches = make(folder / "a", days), api.books, api.batches
    print(
        f"{made.chunks} chunks, {batches['batches']} batches, at most {batches['most_pending']} "
        f"tokens in the queue of {ENQUEUED}, {made.nano_usd / 1e9:.6f} USD, {made.seconds:.0f} s"
    )
    right = made.chunks == options.chunks and made.nano_usd == books.cost_nano_usd
    one_at_a_time = books.requests == batches["batches"] and batches["most_pending"] <= ENQUEUED
    return right and one_at_a_time and not books.billed_twice and not batches["files"]


def sixty(folder: Path, file: Path, api: FakeProcess) -> bool:
    """Sixty real days, with requests and through the Batch API."""
    days, found = listings(file), []
    for mode in ("off", "on"):
        api.reset()
        api.batch_option(polls=2)
        fields = {"document_id": "doc_key", "project": "source"}
        prepare(folder / mode, days, api, mode, fields=fields)
        made, books = make(folder / mode, days), api.books
        print(
            f"{len(days)} days, batch_api {mode}: {made.chunks} chunks, {made.nano_usd} nano-USD "
            f"in the ledger, {books.cost_nano_usd} billed, {books.requests} requests or batches, "
            f"{books.billed_twice} billed twice, {made.seconds:.0f} s"
        )
        if made.nano_usd != books.cost_nano_usd or books.billed_twice:
            return False
        found.append(made)
    sync, batch = found
    half = sync.nano_usd == 2 * batch.nano_usd
    return half and (sync.chunks, sync.digest) == (batch.chunks, batch.digest)


if __name__ == "__main__":
    sys.exit(main())
