"""``deduped_chunks`` of one day in a process of its own: seconds, memory and what is kept.

python -m benchmarks.neardup.ours DATA_DIR OUT
"""

import json
import resource
import sys
import time
from pathlib import Path

from embedding_pipeline.dedup.config import DedupConfig
from embedding_pipeline.pipeline.dedupe import build_deduped_chunks
from embedding_pipeline.vectors.datasets import Datasets

DAY = "2025-01-01"


def main() -> None:
    datasets, out = Datasets(Path(sys.argv[1])), Path(sys.argv[2])
    begun, begun_cpu = time.perf_counter(), time.process_time()
    report = build_deduped_chunks(datasets, DedupConfig(), DAY)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - begun_cpu
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    batches = datasets.deduped_chunks(DAY).iter_batches(["chunk_id"])
    out.write_text("\n".join(name for batch in batches for name in batch.column(0).to_pylist()))
    print(json.dumps({"seconds": seconds, "cpu": cpu, "mb": most, "left out": report.duplicates}))


if __name__ == "__main__":
    main()
