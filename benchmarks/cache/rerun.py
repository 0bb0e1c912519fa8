"""A rerun in which everything is cached, through the Dagster asset, against LangChain's read.

Both keep their vectors on disk on this machine. Ours reads the chunks, finds every vector in
SQLite, and writes the partition's Parquet; LangChain's only hands the lists back.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.cache.clients import MODEL, texts, vectors
from benchmarks.cache.steps import MANY

DAY = "2026-01-01"

Step = Callable[[str, str, str, str, int, int], dict[str, float] | None]


def compare(python: str, chunks: int, rounds: int, step: Step) -> None:
    """CPU seconds a thousand vectors of both, and the ratio."""
    print(f"\nfully cached rerun of {chunks:,} chunks: CPU milliseconds a thousand vectors")
    with TemporaryDirectory(prefix="bench-rerun-") as folder:
        _in_process("prepare", folder, chunks)
        ours = [_in_process("asset", folder, chunks) for _ in range(min(rounds, 3))]
    own = median(float(figures["cpu"]) for figures in ours)
    print(f"  {'ours, the asset':22}{own:8.1f}")
    for name in ("LangChain, files", "LangChain, SQLite"):
        with TemporaryDirectory(prefix="bench-rerun-") as folder:
            if step(python, "fill", name, folder, chunks, rounds) is None:
                print(f"  {name:22} not installed, skipped")
                continue
            read = step(python, "read", name, folder, chunks, rounds) or {}
        print(f"  {name:22}{read['hot_cpu']:8.1f}   ours is {own / read['hot_cpu']:.2f} of it")


def _in_process(which: str, folder: str, chunks: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.cache.rerun", which, folder]
    done = subprocess.run(
        [*command, str(chunks)],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "OPENAI_API_KEY": "sk-nobody-is-asked",
            "DAGSTER_DISABLE_TELEMETRY": "1",
        },
    )
    if done.returncode:
        raise SystemExit(f"{which} failed:\n{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _settings(folder: str):  # type: ignore[no-untyped-def]
    from embedding_pipeline.settings.loading import load_settings

    return load_settings(
        {
            "data_dir": folder,
            "partitions": {"start_date": DAY},
            "source": {"kind": "files", "path": f"{folder}/none-{{date}}.jsonl"},
            "dedup": {"near": False},
            "embedding": {"model": f"openai/{MODEL}"},
            "providers": [
                {"name": "openai", "kind": "openai", "base_url": "http://127.0.0.1:9/v1"}
            ],
        }
    )


def prepare(folder: str, chunks: int) -> dict[str, float]:
    """Chunks on disk, and their vectors in the cache, a request's worth at a time."""
    from embedding_pipeline.assembly.parts import build_datasets, open_store
    from embedding_pipeline.cache import database
    from embedding_pipeline.ledger import flights
    from embedding_pipeline.ledger.flights import Flight
    from embedding_pipeline.ledger.shares import Share
    from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
    from embedding_pipeline.records import Account, Kind, digest_of
    from embedding_pipeline_tests.engine.chunks import chunk_batch

    settings = _settings(folder)
    space = settings.model_spec.space
    datasets = build_datasets(settings)
    with datasets.raw_chunks(DAY).writer() as writer:
        for first in range(0, chunks, MANY):
            writer.write(chunk_batch(texts(MANY, first), first))
    build_deduped_chunks(datasets, settings.dedup, DAY)
    account = Account("test", "", DAY)
    with open_store(settings) as store:
        for first in range(0, chunks, MANY):
            rows = vectors(MANY, first)
            digests = [digest_of(text) for text in texts(MANY, first)]

            def work(connection, digests=digests, rows=rows):  # type: ignore[no-untyped-def]
                number = database.space_id(connection, space)
                flight = Flight(flights.new_id(), "", number, "", "openai", Kind.API, 20, ())
                numbers = flights.settle(
                    connection,
                    flight,
                    [Share(account, 1)],
                    tokens=MANY,
                    requests=1,
                    wait_ms=0,
                    provider="openai",
                    began_ms=0,
                )
                paid = [numbers[account]] * MANY
                database.put_many(connection, number, space, digests, rows, paid, dtype="float32")

            store._transact(work, True)
    return {}


def asset(folder: str, chunks: int) -> dict[str, float]:
    """One run of the asset ``embeddings``; CPU milliseconds a thousand vectors, all threads."""
    import dagster as dg

    from embedding_pipeline.definitions import build_defs

    settings = _settings(folder)
    job = build_defs({}, settings=settings).resolve_job_def("embedding_job")
    with dg.DagsterInstance.ephemeral() as instance:
        cpu, wall = time.process_time(), time.perf_counter()
        result = job.execute_in_process(
            instance=instance, partition_key=DAY, asset_selection=[dg.AssetKey("embeddings")]
        )
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    assert result.success
    files = list(Path(folder).glob("embeddings/*/*.parquet"))
    assert len(files) == 1
    return {"cpu": 1000 * cpu / chunks * 1000, "wall": 1000 * wall / chunks * 1000}


if __name__ == "__main__":
    steps = {"prepare": prepare, "asset": asset}
    print(json.dumps(steps[sys.argv[1]](sys.argv[2], int(sys.argv[3]))))
