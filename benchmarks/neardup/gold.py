"""Precision and recall against people's labels, for several thresholds.

    python -m benchmarks.neardup.gold FOLDER

FOLDER holds ``docs.jsonl.gz`` (id, text) and ``pairs.tsv.gz`` (two ids, 1 for the same
change or 0 for another one, ...). Two texts count as merged when one stands for both.
"""

import argparse
import csv
import gzip
import json
import sys
import tempfile
from pathlib import Path

from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
from embedding_pipeline.vectors.datasets import Datasets
from embedding_pipeline_tests.vectors.building import DAY, Chunk, write_raw

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with gzip.open(folder / "docs.jsonl.gz", "rt") as file:
        chunks = [Chunk(row["id"], row["text"]) for row in map(json.loads, file)]
    with gzip.open(folder / "pairs.tsv.gz", "rt") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    gold = {(row["a"], row["b"]): row["label"] == "1" for row in rows if row["label"] in ("0", "1")}
    print(f"{len(chunks)} texts, {sum(gold.values())} pairs the same, {len(gold)} labelled")
    print("threshold  bands×rows  left out  precision  recall")
    for threshold in THRESHOLDS:
        print(_line(chunks, gold, threshold))
        sys.stdout.flush()


def _line(chunks: list[Chunk], gold: dict[tuple[str, str], bool], threshold: float) -> str:
    config = DedupConfig(threshold=threshold)
    with tempfile.TemporaryDirectory() as folder:
        datasets = Datasets(Path(folder))
        write_raw(datasets, DAY, chunks)
        report = build_deduped_chunks(datasets, config, DAY)
        stands = {
            row["chunk_id"]: row["representative_id"]
            for batch in datasets.duplicate_chunks(DAY).iter_batches()
            for row in batch.to_pylist()
        }
    merged = {pair for pair in gold if stands.get(pair[0], pair[0]) == stands.get(pair[1], pair[1])}
    right = sum(gold[pair] for pair in merged)
    banding = config.banding
    return (
        f"{threshold:9.2f} {banding.bands:6}×{banding.rows:<4} "
        f"{report.chunks_in - report.chunks_out:8} {right / max(len(merged), 1):10.3f} "
        f"{right / sum(gold.values()):7.3f}"
    )


if __name__ == "__main__":
    main()
