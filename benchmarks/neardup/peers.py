"""Near-duplicates by other libraries: run with the Python of an environment that has one.

    PYTHON peers.py NAME raw_chunks.parquet OUT

OUT gets the ids that are kept. Prints seconds (without reading the file) and the most memory
used, as JSON. Imports nothing of ours, so that the environments stay apart.
"""

import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

THRESHOLD = 0.9
HASHES = 128
WORD = re.compile(r"\w+")


def datasketch(ids: list[str], texts: list[str], _: Path) -> list[str]:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=HASHES)
    kept = []
    for name, text in zip(ids, texts, strict=True):
        words = WORD.findall(text.lower())
        signature = MinHash(num_perm=HASHES)
        signature.update_batch([" ".join(words[n : n + 5]).encode() for n in range(len(words) - 4)])
        if not index.query(signature):
            index.insert(name, signature)
            kept.append(name)
    return kept


def text_dedup(_: list[str], __: list[str], source: Path) -> list[str]:
    from datasets import load_from_disk

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "text_dedup.minhash", "--path", "parquet"]
        command += ["--data_files", str(source), "--split", "train", "--column", "text"]
        command += ["--cache_dir", f"{folder}/cache", "--output", f"{folder}/out"]
        command += ["--ngram", "5", "--num_perm", str(HASHES), "--threshold", str(THRESHOLD)]
        command += ["--num_proc", "2", "--batch_size", "10000"]
        command += ["--hash_func", "xxh3", "--hash_bits", "32"]  # the fastest it has
        subprocess.run(command, check=True, stdout=sys.stderr)
        return list(load_from_disk(f"{folder}/out")["chunk_id"])


def semhash(ids: list[str], texts: list[str], _: Path) -> list[str]:
    """With hashed words in place of a model: what is measured is all but the embedding."""
    import numpy as np
    from semhash import SemHash

    class Hashed:
        def encode(self, inputs, **_):
            rows = np.zeros((len(inputs), 256), np.float32)
            for row, text in zip(rows, inputs, strict=True):
                np.add.at(row, [hash(word) & 255 for word in text.split()], 1)
            return rows

    records = [{"id": name, "text": text} for name, text in zip(ids, texts, strict=True)]
    found = SemHash.from_records(records, columns=["text"], model=Hashed())
    return [row["id"] for row in found.self_deduplicate(threshold=THRESHOLD).selected]


def main() -> None:
    name, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    table = pq.read_table(source, columns=["chunk_id", "text"])
    ids, texts = (table[column].to_pylist() for column in ("chunk_id", "text"))
    begun, begun_cpu = time.perf_counter(), time.process_time()
    kept = {"datasketch": datasketch, "text-dedup": text_dedup, "semhash": semhash}[name](
        ids, texts, source
    )
    seconds = time.perf_counter() - begun
    out.write_text("\n".join(kept))
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    most = max(resource.getrusage(one).ru_maxrss for one in who)
    cpu = time.process_time() - begun_cpu + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    print(json.dumps({"seconds": seconds, "cpu": cpu, "mb": most / 1024}))


if __name__ == "__main__":
    main()
